"""The options of a request that creates a session, which it may have besides ADK's fields."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from google.adk.sessions.base_session_service import BaseSessionService
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.endpoints import SESSIONS_PATH
from lapse.adk.errors import UnreadableBodyError
from lapse.adk.private.server_routes import pass_options, passes_options, with_options
from lapse.adk.private.servers import server_of
from lapse.adk.service import LapseSessionService
from lapse.core.errors import InvalidValueError
from lapse.core.log_rate import LogRateLimit
from lapse.core.request import fields_of


def _parameters(create_session: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(create_session).parameters)


_ADKS: Final = _parameters(BaseSessionService.create_session)
"""The arguments that ADK's route passes itself; it refuses options of these names."""

_OPTIONS: Final = _parameters(LapseSessionService.create_session) - _ADKS
_FIELDS: Final = frozenset({"sessionId", "session_id", "state", "events", "options"})
_CLOSE: Final = 0.75
_MOST_LOOKED_AT: Final = 20
_LONGEST_LOOKED_AT: Final = 32

_log = logging.getLogger(__name__)
_log.addFilter(LogRateLimit())


def check_creations(app: FastAPI) -> None:
    """Have ADK's route that creates sessions refuse unknown options by name.

    The route passes known options on, also with a version of ADK that does not.

    To an unknown option ADK answers that the service supports no options at all. ADK ignores
    unknown fields beside the options, and so does Lapse, which logs one that looks like a known
    field.
    """
    server = server_of(app)
    passes = server is None or passes_options()
    if server is not None and not passes:
        pass_options(server)
    for route in app.routes:
        if (
            isinstance(route, APIRoute)
            and route.path == SESSIONS_PATH
            and "POST" in (route.methods or ())
        ):
            route.app = _checking(route.app if passes else _passing(route.app))


def is_plain_creation(fields: Mapping[str, Any]) -> bool:
    """Return whether nothing about a request's fields has to be refused or logged.

    Requests with events are not plain: ADK's endpoint appends them.
    """
    options = fields.get("options")
    return fields.keys() <= _FIELDS - {"events"} and (
        options is None or (isinstance(options, Mapping) and options.keys() <= _OPTIONS)
    )


def _checking(inner: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        fields = fields_of(scope)
        _check_options(fields.get("options"))
        if not fields.keys() <= _FIELDS:
            _tell_misspelt(fields)
        await inner(scope, receive, send)

    return app


def _passing(inner: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        options = fields_of(scope).get("options")
        if not isinstance(options, Mapping | None):
            raise UnreadableBodyError("the options must be an object")
        taken = next((name for name in options or () if name in _ADKS), None)
        if taken is not None:
            raise InvalidValueError("options", f"has a key already bound by the endpoint: {taken}")
        with with_options(options or {}):
            await inner(scope, receive, send)

    return app


def _check_options(options: object) -> None:
    if not isinstance(options, Mapping) or options.keys() <= _OPTIONS:
        return
    wrong = next((name for name in options if name not in _OPTIONS | _ADKS), None)
    if wrong is None:
        return
    raise InvalidValueError(
        "options",
        f"{wrong:.40} is not an option; use ttlMinutes (or ttl_minutes), metadata and reuse",
    )


def _tell_misspelt(fields: Mapping[str, Any]) -> None:
    """Log a field that nothing reads, if it looks like one that is read: it may be a mistake."""
    unknown = (name for name in fields if name not in _FIELDS and len(name) <= _LONGEST_LOOKED_AT)
    for name in islice(unknown, _MOST_LOOKED_AT):
        if name in _OPTIONS:
            _log.warning("a create request has %s beside its options, and it is ignored", name)
        elif meant := get_close_matches(name, _FIELDS, 1, _CLOSE):
            _log.warning("a create request has %s, which is ignored; is %s meant?", name, meant[0])
