"""Changes of a session's state by request, kept apart from the session's runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from lapse.core.errors import NotWithThisStoreError, RunInFlightError
from lapse.core.keys import SessionKey
from lapse.runs.store import RunStore


class StateChanges:
    """Refuses a change of state while a run is in flight in the session, and lets runs wait for it.

    A run appends to the session as it was after the run's last event. A change between two of its
    events would fail the next one, and cost the run its answer. Between two processes there remain
    the milliseconds between the look at the store and the change.

    Args:
        store: where detached runs of all processes are recorded.
        has_run: returns whether a run of this process is in flight, or begins, in a session.
    """

    def __init__(self, store: RunStore, has_run: Callable[[SessionKey], bool]) -> None:
        self._store = store
        self._has_run = has_run
        self._changing: dict[SessionKey, set[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def changing(self, key: SessionKey) -> AsyncIterator[None]:
        """Hold off runs that begin in a session for as long as the block, which changes its state.

        Raises:
            RunInFlightError: a run is in flight in the session: a detached run, or one of this
                process.
        """
        key = key.stripped
        ended = asyncio.get_running_loop().create_future()
        self._changing.setdefault(key, set()).add(ended)
        try:
            if self._has_run(key):
                raise RunInFlightError("")
            with suppress(NotWithThisStoreError):
                record = await self._store.find_run(key)
                if record is not None and record.in_flight:
                    raise RunInFlightError(record.run_id)
            yield
        finally:
            self._changing[key].discard(ended)
            if not self._changing[key]:
                del self._changing[key]
            ended.set_result(None)

    async def ended(self, key: SessionKey) -> None:
        """Wait for the changes in hand; the caller's run is in flight already, so no more begin."""
        if changes := self._changing.get(key.stripped):
            await asyncio.wait(changes)
