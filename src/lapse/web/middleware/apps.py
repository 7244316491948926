"""Middleware about the app of a request: the default app, and the 404 of an app not served."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.agents import OWN_PREFIX, ServedApps
from lapse.auth.addresses import parse_address
from lapse.auth.gate import Refusal
from lapse.auth.principals import Role, current_principal
from lapse.core.request import fields_of, parts_of, route_path

_APP_FIELDS: Final = ("appName", "app_name")
_SESSION_INPUT_FIELDS: Final = ("sessionInput", "session_input")
_RUNS: Final = {"/run", "/run_sse"}
_LIVE: Final = "/run_live"
_EVALUATION: Final = re.compile(r"/dev/apps/[^/]*/eval.*")

_WITHOUT_APP: Final = re.compile(r"/(?:users/|app-info$|trigger/)")
"""The paths without an app that ADK's server reads as paths of its default app."""

_PROXY_HEADERS: Final = (b"x-forwarded-", b"x-real-ip", b"forwarded", b"via")
"""Prefixes of the names of headers that proxies add."""


class ServedAppsMiddleware:
    """Passes a request on only if every app that it names is served.

    A request names an app in its path, in the body of a run or of an evaluation case, or in the
    query of `/run_live`; a run that names none means the default app. If a name is given twice,
    both apps must be served. The middleware comes after authentication and before everything that
    reads a session: for an app that is not served nothing is read, loaded or created.

    ADK's own agents (`__…`) are served to operators only. Without authentication they are served
    to callers on this machine only, and not through a proxy.

    Args:
        app: the next layer.
        served: the apps that are served.
        default_app: the app of runs that name none; None: the routes refuse such runs.
        authenticated: whether callers are authenticated.
    """

    def __init__(
        self, app: ASGIApp, *, served: ServedApps, default_app: str | None, authenticated: bool
    ) -> None:
        self._app = app
        self._served = served
        self._default_app = default_app
        self._authenticated = authenticated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        for app_name in self._named(scope):
            if not await self._is_served(app_name, scope):
                refusal = Refusal(
                    404, f"App {app_name!r:.60} is not served here; ask for one that is"
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _named(self, scope: Scope) -> list[str]:
        """Return the apps that a request names."""
        named: list[str] = []
        path = route_path(scope)
        match parts_of(path):
            case ["", "apps", app_name, _, *_] | ["", "dev", "apps", app_name, *_]:
                named = [app_name]
        if scope["type"] == "websocket":
            if path == _LIVE:
                query = QueryParams(scope["query_string"])
                named += self._or_default(
                    [value for field in _APP_FIELDS for value in query.getlist(field)]
                )
        elif path in _RUNS:
            fields = fields_of(scope)
            named += self._or_default([fields[field] for field in _APP_FIELDS if field in fields])
        elif _EVALUATION.fullmatch(path):
            named += _of_session_inputs(fields_of(scope))
        return named

    def _or_default(self, values: list[Any]) -> Iterable[str]:
        """Return the app for each value of the field; the routes refuse values that are no text."""
        app_names = [value or self._default_app for value in values or [None]]
        return [app_name for app_name in app_names if isinstance(app_name, str)]

    async def _is_served(self, app_name: str, scope: Scope) -> bool:
        if app_name.startswith(OWN_PREFIX) and not self._may_use_adks_own(scope):
            return False
        return await self._served.has(app_name)

    def _may_use_adks_own(self, scope: Scope) -> bool:
        if not self._authenticated:
            return _is_from_this_machine(scope)
        principal = current_principal()
        return principal is not None and principal.role is Role.OPERATOR


def _of_session_inputs(fields: Mapping[str, Any]) -> Iterable[str]:
    """Return the apps in whose sessions an evaluation case will run."""
    inputs = [fields.get(field) for field in _SESSION_INPUT_FIELDS]
    values = [one.get(field) for one in inputs if isinstance(one, dict) for field in _APP_FIELDS]
    return [value for value in values if isinstance(value, str)]


def _is_from_this_machine(scope: Scope) -> bool:
    """Return whether the peer is on this machine, and no header says that it is a proxy."""
    peer = scope.get("client")
    address = parse_address(peer[0]) if peer else None
    if address is None or not address.is_loopback:
        return False
    return not any(name.startswith(_PROXY_HEADERS) for name, _ in scope["headers"])


class DefaultAppMiddleware:
    """Adds ADK's default app to a path that names no app, where the server is below a prefix.

    ADK does this itself, but looks at the whole path, which then begins with the prefix.
    """

    def __init__(self, app: ASGIApp, *, default_app: str) -> None:
        self._app = app
        self._default_app = default_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] in {"http", "websocket"} and scope.get("root_path"):
            path = route_path(scope)
            if _WITHOUT_APP.match(path):
                whole = f"{scope['path'].removesuffix(path)}/apps/{self._default_app}{path}"
                scope = {name: value for name, value in scope.items() if name != "raw_path"}
                scope["path"] = whole
        await self._app(scope, receive, send)
