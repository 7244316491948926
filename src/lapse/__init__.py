"""Lapse: the session life-cycle layer for agents built with Google's Agent Development Kit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lapse.adk.service import LapseSessionService
    from lapse.app import session_service
    from lapse.store import store_from_url

__all__ = ["LapseSessionService", "session_service", "store_from_url"]

_HOMES = {
    "LapseSessionService": "lapse.adk.service",
    "session_service": "lapse.app",
    "store_from_url": "lapse.store",
}


def __getattr__(name: str) -> Any:
    # Late, because ADK takes seconds to import and not every command needs it.
    if name not in _HOMES:
        raise AttributeError(f"module 'lapse' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
