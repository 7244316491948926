"""Counts the sessions of another session service of ADK's, through its API and within a rate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from lapse.adoption.adopt import Throttle
from lapse.conversations.rules import MARK
from lapse.core.documents import split_state
from lapse.core.errors import LapseError, StoreRefusedError
from lapse.core.keys import SessionKey
from lapse.databases.report import Group, Question, Report, Seen, group

_AT_ONCE: Final = 8
"""Sessions that are read at the same time."""


class Conversations(Protocol):
    """The reads that a report needs of a service; `Elsewhere` of `lapse.adk` has them for ADK's."""

    async def list(self, app_name: str, user_id: str | None) -> Sequence[Any]:
        """Return the sessions of an app, each with its `user_id` and `id`."""
        ...

    async def get(self, key: SessionKey, service_id: str | None, config: None) -> Any:
        """Return a session of ADK's with all its events; None if there is none."""
        ...


async def report_of_service(
    service: Conversations,
    uri: str,
    apps: Sequence[str],
    ttl: timedelta,
    *,
    rate: float,
    on_listed: Callable[[int], Callable[[int], None]] = lambda _: lambda _: None,
) -> Report:
    """Count the sessions of some apps in a service, and change nothing.

    A service tells no time of creation. An empty session counts from its last change, any other
    from its first event, and the report has no times to first messages. A session that is deleted
    meanwhile is not counted.

    Args:
        service: the service; it stays open.
        uri: names the service, as LAPSE_CONVERSATIONS_URI does.
        apps: the apps; a service lists sessions by app.
        ttl: the TTL that is asked about.
        rate: how many sessions are read in a second, at most.
        on_listed: called with the number of sessions; returns a function that is called with the
            number of those that were read.

    Raises:
        StoreUnavailableError: the service does not answer.
        StoreRefusedError: the service cannot be read.
    """
    question = Question(datetime.now(UTC), ttl)
    groups: list[Group] = []
    try:
        keys = [key for app in apps for key in await _listed(service, app)]
        tell, throttle, read = on_listed(len(keys)), Throttle(rate), 0
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            found = await asyncio.gather(*(_seen(service, key) for key in some))
            groups += group(question, (seen for seen in found if seen is not None))
            read += len(some)
            tell(read)
            await throttle.spent(len(some))
    except LapseError:
        raise
    except Exception as error:
        # The services quote the URI, and it may hold a password.
        raise StoreRefusedError(
            f"{_place(uri)}: cannot be read ({type(error).__name__}); look at the service, and at "
            "the URI"
        ) from error
    untimed = [replace(one, delay=None) for one in groups]
    return Report(question, _place(uri), None, untimed, {}, is_service=True)


async def _listed(service: Conversations, app: str) -> list[SessionKey]:
    return [SessionKey(app, one.user_id, one.id) for one in await service.list(app, None)]


async def _seen(service: Conversations, key: SessionKey) -> Seen | None:
    """Return a session as it is counted; None if it is gone."""
    session = await service.get(key, None, None)
    if session is None:
        return None
    events = [
        (_moment(event.timestamp), *_document(event.model_dump(exclude_none=True, mode="json")))
        for event in session.events
    ]
    # What other sessions share makes this one no less empty.
    own = {
        name: value for name, value in split_state(session.state).session.items() if name != MARK
    }
    began = session.events[0].timestamp if session.events else session.last_update_time
    return Seen(key.app_name, key.session_id, _moment(began), json.dumps(own, default=str), events)


def _document(event: dict[str, Any]) -> tuple[dict[str, Any], int]:
    return event, len(json.dumps(event))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _place(uri: str) -> str:
    """Return where a service is, without the password and the options of its URI."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
