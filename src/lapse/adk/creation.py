"""What a request that creates a session gives besides ADK's fields: its options, by their names."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

from fastapi.routing import APIRoute
from google.adk.sessions.base_session_service import BaseSessionService
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.service import LapseSessionService
from lapse.core.errors import InvalidValueError
from lapse.core.log_rate import LogRateLimit
from lapse.core.request import fields_of

_PATH: Final = "/apps/{app_name}/users/{user_id}/sessions"


def _parameters(create_session: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(create_session).parameters)


_ADKS: Final = _parameters(BaseSessionService.create_session)
"""What ADK's route gives by itself; it refuses options of these names."""

_OPTIONS: Final = _parameters(LapseSessionService.create_session) - _ADKS
_FIELDS: Final = frozenset({"sessionId", "session_id", "state", "events", "options"})
_CLOSE: Final = 0.75
_MOST_LOOKED_AT: Final = 20
_LONGEST_LOOKED_AT: Final = 32

_log = logging.getLogger(__name__)
_log.addFilter(LogRateLimit())


def check_creations(routes: Iterable[object]) -> None:
    """Have ADK's route that creates sessions refuse options that there are not, by their names.

    ADK says of an unknown option that the service supports none at all. It ignores unknown fields
    beside the options, and so does Lapse; but one that looks like a known field is logged.
    """
    for route in routes:
        if isinstance(route, APIRoute) and route.path == _PATH and "POST" in (route.methods or ()):
            route.app = _checking(route.app)


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


def _check_options(options: object) -> None:
    if not isinstance(options, Mapping) or options.keys() <= _OPTIONS:
        return
    wrong = next((name for name in options if name not in _OPTIONS | _ADKS), None)
    if wrong is None:
        return
    raise InvalidValueError(
        "options",
        f"{wrong:.40} is not an option: ttlMinutes (or ttl_minutes), metadata and reuse are",
    )


def _tell_misspelt(fields: Mapping[str, Any]) -> None:
    """Log a field that nothing reads, if it looks like one that is read: it may be a mistake."""
    unknown = (name for name in fields if name not in _FIELDS and len(name) <= _LONGEST_LOOKED_AT)
    for name in islice(unknown, _MOST_LOOKED_AT):
        if name in _OPTIONS:
            _log.warning("a create request has %s beside its options, where nothing reads it", name)
        elif meant := get_close_matches(name, _FIELDS, 1, _CLOSE):
            _log.warning(
                "a create request has %s, which nothing reads; did it mean %s?", name, meant[0]
            )
