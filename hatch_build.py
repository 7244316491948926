"""Writes the project's addresses into a release: whoever releases says where the repository is."""

from __future__ import annotations

import os
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Addresses(MetadataHookInterface):
    """Makes `project.urls` of PROJECT_REPOSITORY; without it, a release names no address."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the addresses to the metadata."""
        repository = os.environ.get("PROJECT_REPOSITORY", "").rstrip("/")
        metadata["urls"] = {
            name: repository + path
            for name, path in {
                "Repository": "",
                "Documentation": "/tree/main/docs",
                "Changelog": "/blob/main/CHANGELOG.md",
                "Issues": "/issues",
                "Security": "/security/policy",
            }.items()
            if repository
        }
