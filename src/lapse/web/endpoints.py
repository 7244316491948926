"""ADK's endpoints that can answer a plain request without the middleware before them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from lapse.adk.endpoints import validator_of
from lapse.adk.private.server_routes import is_endpoint_of_server

ENDPOINTS: Final = {
    ("POST", False): "create_session",
    ("GET", False): "list_sessions",
    ("GET", True): "get_session",
    ("DELETE", True): "delete_session",
}
"""ADK's endpoints, by the method and by whether the path names a session."""

_KNOWN: Final = ("lapse.", "google.adk.", "fastapi.applications")
"""The modules of the endpoints and routes that may stand before ADK's: none takes its requests."""


class Endpoint(NamedTuple):
    """A route of ADK's, and the function that makes its endpoint's body parameter, if any."""

    route: APIRoute
    validate: Callable[[Any], Any] | None


def endpoints_of(routes: Iterable[BaseRoute]) -> Mapping[tuple[str, bool], Endpoint]:
    """Return ADK's endpoints by method and by whether the path names a session.

    An endpoint is left out if another route stands before it that may take its requests.
    """
    found: dict[tuple[str, bool], Endpoint] = {}
    for route in routes:
        for asked, name in ENDPOINTS.items():
            if is_endpoint_of_server(route, name):
                found.setdefault(asked, Endpoint(route, validator_of(route)))
        if not _is_known(route):
            break
    return found


def _is_known(route: BaseRoute) -> bool:
    module = getattr(getattr(route, "endpoint", route), "__module__", "")
    return module.startswith(_KNOWN)
