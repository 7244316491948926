"""Runs in sessions whose events another session service holds: it is asked for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lapse.core.keys import SessionKey
from lapse.idempotency.rules import KeyedRequest
from lapse.runs.repeats import NOTHING_KNOWN, Known, RepeatStore, answers, run_of
from lapse.runs.store import RunNews, RunRecord, RunStore, record_of
from lapse.store.database import Database
from lapse.store.operation import Asking, operation, rows
from lapse.store.records import EventRecord

if TYPE_CHECKING:
    from lapse.adk.service import LapseSessionService

Event = Any
"""One of ADK's events; only `lapse.adk` knows their class."""

Read = Callable[[SessionKey], Awaitable[Sequence[Event]]]
"""Reads a session's events, in order; none of a session that does not exist."""


def stores_of(service: LapseSessionService) -> tuple[RunStore, RepeatStore]:
    """Return the stores of the runs in a service's sessions."""
    if service.has_stored_events:
        return RunStore(service.store), RepeatStore(service.store)

    async def read(key: SessionKey) -> Sequence[Event]:
        found = await service.get_session(
            app_name=key.app_name, user_id=key.user_id, session_id=key.session_id
        )
        return [] if found is None else found.events

    return RunsElsewhere(service.store, read), RepeatsElsewhere(service.store, read)


class RunsElsewhere(RunStore):
    """The operations on runs, with their events from another service."""

    def __init__(self, database: Database, read: Read) -> None:
        super().__init__(database)
        self._read = read

    async def find_run(
        self, key: SessionKey, run_id: str | None = None, *, event_id: str | None = None
    ) -> RunRecord | None:
        """Return a session's run as `RunStore.find_run` does."""
        if event_id is None:
            return await super().find_run(key, run_id)
        events = await self._read(key)
        said = next((one for one in events if one.id == event_id and one.author != "user"), None)
        if said is None:
            return None
        for record in await self.runs_of(key):
            if (run_id is None or record.run_id == run_id) and is_of_run(said, record):
                return record
        return None

    @operation(writes=False)
    def runs_of(self, key: SessionKey) -> Asking[Sequence[RunRecord]]:
        """Return the runs of a session, the latest first."""
        return [record_of(key, row) for row in (yield from rows("runs_of_session", key))]

    async def run_news(
        self, last_seen: Mapping[str, str | None], *, limit: int
    ) -> Sequence[RunNews]:
        """Return runs' records and events as `RunStore.run_news` does.

        The records are read first: of a run that has ended then, no later events will come.
        """
        told = await super().run_news(last_seen, limit=1)
        events = {key: await self._read(key) for key in {one.record.key for one in told}}
        return [
            RunNews(one.record, _after(events[one.record.key], one.record, last_seen, limit))
            for one in told
        ]


class RepeatsElsewhere(RepeatStore):
    """The operations on runs of requests with a key, with their events from another service."""

    def __init__(self, database: Database, read: Read) -> None:
        super().__init__(database)
        self._read = read

    @operation(writes=False)
    def kept_run(
        self, key: SessionKey, asked: KeyedRequest
    ) -> Asking[tuple[RunRecord, str] | None]:
        """Return the latest run of a request and the id of its message; None: no key is kept."""
        found = yield from run_of(key, asked)
        return None if found is None else (record_of(key, found[0]), found[1])

    async def known(self, key: SessionKey, asked: KeyedRequest) -> Known:
        """Return what is known of a request, as `RepeatStore.known` does."""
        kept = await self.kept_run(key, asked)
        if kept is None:
            return NOTHING_KNOWN
        record, message_id = kept
        return _known(record, message_id, await self._read(key))

    async def begin_once(
        self,
        key: SessionKey,
        run_id: str,
        asked: KeyedRequest,
        *,
        max_per_user: int,
        prepared: Known,
    ) -> Known:
        """Begin a run as `RepeatStore.begin_once` does; the service is asked just before."""
        if (known := await self.known(key, asked)) != prepared:
            return known
        in_store = await super().known(key, asked)
        begun = await super().begin_once(
            key, run_id, asked, max_per_user=max_per_user, prepared=in_store
        )
        if begun.run is not None and begun.run.run_id == run_id:
            return replace(prepared, run=begun.run, message_id=begun.message_id)
        return await self.known(key, asked)


def is_of_run(event: Event, record: RunRecord) -> bool:
    """Return whether an event is one of an agent's in a run."""
    at = _moment(event)
    return (
        event.author != "user"
        and event.invocation_id == record.invocation_id
        and record.since is not None
        and at >= record.since
        and (record.until is None or at <= record.until)
    )


def _known(record: RunRecord, message_id: str, events: Sequence[Event]) -> Known:
    message = next((event for event in events if event.id == message_id), None)
    has_spoken = any(is_of_run(event, record) for event in events)
    is_stored = message is not None
    opened = None
    if message is not None and not any(
        event.author == "user"
        and event.invocation_id == message.invocation_id
        and event.timestamp < message.timestamp
        for event in events
    ):
        opened = message.invocation_id
    it_answers = answers(record, is_stored=is_stored, has_spoken=has_spoken)
    return Known(record if it_answers else None, message_id, is_stored, opened)


def _after(
    events: Sequence[Event], record: RunRecord, last_seen: Mapping[str, Any], limit: int
) -> Sequence[EventRecord]:
    """Return the agent's events in a run after the last seen one."""
    from lapse.adk.translation import new_event

    said = sorted(
        (event for event in events if is_of_run(event, record)),
        key=lambda event: (event.timestamp, event.id),
    )
    seen = next((event for event in events if event.id == last_seen[record.run_id]), None)
    if seen is not None:
        # A service may keep times less exactly: events of one time are told apart by their ids.
        last = (seen.timestamp, seen.id)
        said = [event for event in said if (event.timestamp, event.id) > last]
    return [new_event(event).record for event in said[:limit]]


def _moment(event: Event) -> datetime:
    return datetime.fromtimestamp(event.timestamp, UTC)
