"""Events whose change of app or user state finds no room in the store."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from google.adk.events.event import Event
from google.adk.sessions.session import Session

from lapse.adk.unstorable import is_from_client, written_storable
from lapse.core.errors import SharedStateFullError
from lapse.core.keys import SessionKey
from lapse.store.records import NewEvent

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LONGEST_KEYS: Final = 200
"""Characters of the keys that a line of the log names."""


async def append_within(
    session: Session, event: Event, append: Callable[[NewEvent], Awaitable[T]]
) -> T:
    """Append an event with `append`; if there is no room for an agent's state, without that state.

    The state is then taken out of `event`, too, and a warning names its keys: the user still gets
    the answer. All `app:` keys of an event are left out or none, and so are its `user:` keys, so
    that what was written together stays together.

    Raises:
        SharedStateFullError: there is no room, and a client asks for the change.
        InvalidValueError: the event cannot be stored.
    """
    while True:
        try:
            return await append(await written_storable(session, event))
        except SharedStateFullError as error:
            if is_from_client(event):
                raise
            key = SessionKey(session.app_name, session.user_id, session.id)
            left_out = _leave_out(event, error.prefixes)
            _log.warning(
                "state left out of an event: %s",
                error,
                extra={"app": key.app_name, "session": key.short, "keys": left_out},
            )


def _leave_out(event: Event, prefixes: Sequence[str]) -> str:
    """Take the keys with these prefixes out of an event's change of state; return their names."""
    delta = event.actions.state_delta
    names = [name for name in delta if name.startswith(tuple(prefixes))]
    event.actions.state_delta = {name: value for name, value in delta.items() if name not in names}
    return ", ".join(names)[:_LONGEST_KEYS]
