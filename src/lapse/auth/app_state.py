"""Whose requests may set app state, which the agents of all users of an app read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

from lapse.auth.principals import Role, current_principal
from lapse.core.documents import APP_PREFIX
from lapse.core.errors import InvalidValueError

_FIELDS: Final = ("state", "stateDelta", "state_delta")
"""The fields in which ADK and Lapse take state from a client."""


class AppStateBy(StrEnum):
    """Who sets app state where nobody is authenticated."""

    ANYONE = "anyone"
    AGENTS = "agents"


def may_set_app_state(by: AppStateBy) -> bool:
    """Return whether whoever asks may set app state by the request itself.

    Services and operators may, and users may not; `by` decides where nobody is authenticated. It
    is not about what agents and tools set while they work for a user.
    """
    principal = current_principal()
    if principal is None:
        return by is AppStateBy.ANYONE
    return principal.role is not Role.USER


def refuse_app_state(fields: Mapping[str, Any]) -> None:
    """Refuse a request that sets app state, by the top-level fields of its JSON.

    Raises:
        InvalidValueError: it does; the error names the field and the key.
    """
    for field, state in _states_in(fields):
        for key in state if isinstance(state, Mapping) else ():
            if key.startswith(APP_PREFIX):
                reason = (
                    f"must not set {key!r:.60}; app state is for agents, services and operators"
                )
                raise InvalidValueError(field, reason)


def _states_in(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield whatever in a request's fields is, or may be, state, with the name of the field."""
    for name in _FIELDS:
        yield name, fields.get(name)
    # `POST …/sessions/{id}`, which ADK deprecates, takes state as its whole body.
    yield "body", fields
    # ADK itself takes no event that changes state from a client.
    events = fields.get("events")
    for event in events if isinstance(events, list) else ():
        actions = event.get("actions") if isinstance(event, Mapping) else None
        if isinstance(actions, Mapping):
            for name in _FIELDS:
                yield "events", actions.get(name)
