"""Records how a run has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from lapse.core.errors import StoreUnavailableError
from lapse.runs.run import Run
from lapse.runs.store import HEARTBEAT, RunStatus, RunStore

_ATTEMPTS: Final = 5

_log = logging.getLogger("lapse.runs")


async def record_end(
    store: RunStore, run: Run, status: RunStatus, error: Mapping[str, Any] | None
) -> RunStatus:
    """Record how a run ended; return the status that its record has."""
    await run.settle()
    run.status = status
    for attempt in range(_ATTEMPTS):
        try:
            return await _stored_end(store, run, status, error)
        except StoreUnavailableError as fault:
            if attempt == 0:
                _log.warning("the end of a run cannot be recorded now: %s", fault)
            await asyncio.sleep(HEARTBEAT.total_seconds() * 2**attempt / 16)
    # Without heartbeats other processes soon treat the run as interrupted.
    return RunStatus.INTERRUPTED


async def _stored_end(
    store: RunStore, run: Run, status: RunStatus, error: Mapping[str, Any] | None
) -> RunStatus:
    run_id = run.record.run_id
    if await store.end_run(run_id, status, error=error, until=run.until):
        return status
    # The run went stale or was deleted, or an earlier attempt has recorded its end.
    stored = await store.find_run(run.record.key, run_id)
    return RunStatus.INTERRUPTED if stored is None else stored.status
