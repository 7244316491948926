"""Who may call which path: one table for ADK's routes, Lapse's routes and all others."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from lapse.core.request import parts_of


class Reach(Enum):
    """Who may call a route."""

    ANYBODY = auto()
    """Everybody, known or not: nothing of any user's is told."""

    OWN_ADMISSION = auto()
    """The route decides itself, also about those whom nobody knows."""

    PRINCIPALS = auto()
    """Everybody who is known."""

    OWNER = auto()
    """The user whom the path names, and who may act for them."""

    OWNER_IN_BODY = auto()
    """The user whom the JSON body names."""

    OWNER_IN_QUERY = auto()
    """The user whom the query names."""

    SERVICES = auto()
    """Services and operators: it acts for users that it chooses itself."""

    OPERATORS = auto()
    """Operators: it shows or changes what is of many users, or of the server."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a path, and whose it is where the path says so."""

    reach: Reach
    user_id: str = ""
    app_name: str = ""
    session_id: str = ""


_PATHS: Final = {
    # Load balancers have no token, and are told that the process lives.
    "/livez": Reach.ANYBODY,
    "/readyz": Reach.ANYBODY,
    "/health": Reach.ANYBODY,
    # A page's <script> cannot send a header; it is a published file.
    "/lapse/client.js": Reach.ANYBODY,
    "/": Reach.PRINCIPALS,
    "/list-apps": Reach.PRINCIPALS,
    "/version": Reach.PRINCIPALS,
    "/openapi.json": Reach.PRINCIPALS,
    "/docs": Reach.PRINCIPALS,
    "/docs/oauth2-redirect": Reach.PRINCIPALS,
    "/redoc": Reach.PRINCIPALS,
    "/run": Reach.OWNER_IN_BODY,
    "/run_sse": Reach.OWNER_IN_BODY,
    "/agent-identity/finalize": Reach.OWNER_IN_BODY,
    "/run_live": Reach.OWNER_IN_QUERY,
}

_BELOW: Final = {
    "/lapse/demo/": Reach.PRINCIPALS,
    "/lapse/": Reach.OWN_ADMISSION,
}


def access_to(
    path: str, *, open_paths: Collection[str] = (), shared_paths: Collection[str] = ()
) -> Access:
    """Return who may call a path, as the routes will match it.

    Only operators may call a path that is in no table, so a forgotten route is closed.
    """
    if _is_among(path, open_paths):
        return Access(Reach.ANYBODY)
    if _is_among(path, shared_paths):
        return Access(Reach.PRINCIPALS)
    if (reach := _PATHS.get(path)) is not None:
        return Access(reach)
    match parts_of(path):
        case ["", "apps", app_name, "users", user_id, *rest]:
            session_id = rest[1] if len(rest) > 1 and rest[0] == "sessions" else ""
            return Access(Reach.OWNER, user_id, app_name, session_id)
        case ["", "apps", _, "trigger", _]:
            # ADK has these routes only where it verifies a token of Google's at each.
            reach = Reach.OWN_ADMISSION
        case ["", "api", _] | ["", "a2a", _, *_]:
            reach = Reach.SERVICES
        case _:
            below = (reach for prefix, reach in _BELOW.items() if path.startswith(prefix))
            reach = next(below, Reach.OPERATORS)
    return Access(reach)


def _is_among(path: str, paths: Collection[str]) -> bool:
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in paths)
