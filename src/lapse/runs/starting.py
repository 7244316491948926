"""Starts runs in the store: each request one run, or with an idempotency key the run it has."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from lapse.adk.context import reviving
from lapse.runs.repeats import NOTHING_KNOWN, Known, RepeatStore
from lapse.runs.run import Asked, Chunks, Run
from lapse.runs.store import RunRecord, RunStore


@dataclass(frozen=True, slots=True)
class Beginning:
    """A run that answers a request.

    Attributes:
        record: its record.
        chunks: what its agent will send; None: the run has begun before.
        known: what is known of the request if it has an idempotency key.
    """

    record: RunRecord
    chunks: Chunks | None = None
    known: Known = NOTHING_KNOWN


@dataclass(frozen=True, slots=True)
class Started:
    """The run that answers a request.

    Attributes:
        record: its record, from when it began or was found.
        run: the run, if this process drives it.
        known: what was known of the request if it has an idempotency key.
        is_new: whether this request has begun it.
    """

    record: RunRecord
    run: Run | None
    known: Known = NOTHING_KNOWN
    is_new: bool = False


async def begin(
    runs: RunStore, repeats: RepeatStore, asked: Asked, *, max_per_user: int
) -> Beginning:
    """Record that a run begins; a request with a key may have a run already.

    Raises:
        RunInFlightError: another run is in flight in the session.
        Exception: what `RunStore.begin_run`, `RepeatStore.begin_once` and `open_chunks` raise.
    """
    run_id = str(uuid.uuid4())
    if asked.once is None:
        with reviving(asked.key):
            chunks = await asked.open_chunks(None)
        record = await runs.begin_run(asked.key, run_id, max_per_user=max_per_user)
        return Beginning(record, chunks)
    known = await repeats.known(asked.key, asked.once)
    while known.run is None:
        with reviving(asked.key):
            chunks = await asked.open_chunks(known.invocation_id)
        known = await repeats.begin_once(
            asked.key, run_id, asked.once, max_per_user=max_per_user, prepared=known
        )
        if known.run is not None and known.run.run_id == run_id:
            return Beginning(known.run, chunks, known)
    return Beginning(known.run, None, known)
