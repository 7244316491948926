"""The bundled demo: an ADK agent and a chat page that need no API key and no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lapse.adk.server_options import ServerOptions

AGENTS_DIR: Final = Path(__file__).parent / "agents"

APP_NAME: Final = "concierge"
"""The app whose agent the chat page talks to."""


def is_bundled(folder: Path) -> bool:
    """Return whether a folder of agents is one of this package's demos."""
    from lapse.demo import local_llm

    return folder in {AGENTS_DIR, local_llm.AGENTS_DIR}


def served_from(
    agents_dir: str | Path | None, options: ServerOptions, chat_page: str | None
) -> tuple[Path, ServerOptions, str | None]:
    """Return the folder that is served, with options and a chat page that fit the bundled one.

    That folder is part of the installed package, so artifacts are not written there.
    """
    folder = AGENTS_DIR if agents_dir is None else Path(agents_dir)
    if not is_bundled(folder):
        return folder, options, chat_page
    uri = options.artifact_service_uri or "memory://"
    return folder, replace(options, artifact_service_uri=uri), chat_page or APP_NAME
