"""The warning about routes that run agents or show sessions to everybody."""

from __future__ import annotations

import logging
from typing import Final

from fastapi import FastAPI

from lapse.adk.endpoints import paths_of
from lapse.auth.access import Reach, access_to

_OF_OWNERS: Final = {Reach.OWNER, Reach.OWNER_IN_BODY, Reach.OWNER_IN_QUERY}
"""Routes that authentication opens to a session's owner."""

_OF_OTHERS: Final = ("/a2a/", "/dev/", "/api/reasoning_engine", "/api/stream_reasoning_engine")
"""Routes of ADK's that run agents or show sessions, and that it opens to services or operators."""

_log = logging.getLogger(__name__)


def warn_of_open_routes(app: FastAPI) -> None:
    """Log one warning that names the routes by which anybody may use anybody's sessions.

    Routes of the application's own are not known, so they are not named.
    """
    if paths := sorted(filter(_is_open, paths_of(app))):
        _log.warning(
            "nobody is authenticated, so whoever reaches this application may run agents and read "
            "sessions as any user by: %s. To close these routes, set LAPSE_AUTH or pass "
            "`authentication` to `mount` (docs/security.md)",
            ", ".join(paths),
        )


def _is_open(path: str) -> bool:
    return access_to(path).reach in _OF_OWNERS or path.startswith(_OF_OTHERS)
