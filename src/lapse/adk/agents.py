"""Finds agents in folders by ADK's rules."""

from __future__ import annotations

import os
from pathlib import Path


def has_agents(folder: Path) -> bool:
    """Return whether ADK finds an agent: the folder itself, or a folder directly in it."""
    if _is_agent(folder):
        return True
    return any(
        _is_agent(child) or (child / "__init__.py").is_file()
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith((".", "__"))
    )


def _is_agent(folder: Path) -> bool:
    return (folder / "agent.py").is_file() or (folder / "root_agent.yaml").is_file()


def default_app(agents_dir: Path) -> str | None:
    """Return the app of a request that names no app, by ADK's rule.

    It is the folder itself if that is an agent, else `ADK_DEFAULT_APP_NAME`, else None.
    """
    folder = agents_dir.resolve()
    return folder.name if _is_agent(folder) else os.environ.get("ADK_DEFAULT_APP_NAME")
