"""The answers to requests for runs, while the run goes on and after it has ended."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi.responses import JSONResponse
from starlette.responses import Response

from lapse.adk.events import read_event
from lapse.adk.private.wire import public_fields
from lapse.adk.translation import are_large
from lapse.core.errors import (
    AnswerLostError,
    LapseError,
    OutcomeUnknownError,
    ShuttingDownError,
    StoreUnavailableError,
)
from lapse.runs.bodies import RunStarted
from lapse.runs.cursor import Cursor
from lapse.runs.frames import DATA, ENDINGS, ID, cut_frame, error_of
from lapse.runs.replay import stored_events
from lapse.runs.run import Asked
from lapse.runs.runs import Runs
from lapse.runs.starting import Started
from lapse.runs.store import RunRecord, RunStatus
from lapse.runs.stream import LaggedError
from lapse.store.records import EventRecord

RUN_HEADER: Final = "Lapse-Run"
"""The header of an answer that names its run."""

_REFUSALS: Final = {
    "InvalidValueError": 400,
    "EventIdTakenError": 400,
    "SharedStateFullError": 400,
    "ValueError": 400,
    "SessionNotFoundError": 404,
    "StaleSessionError": 409,
}
"""The status of the answer if the message could not be stored, by the type of ADK's error."""

_OUTAGES: Final[Mapping[str, type[LapseError]]] = {
    "AnswerLostError": AnswerLostError,
    "OutcomeUnknownError": OutcomeUnknownError,
    "RunCancelledError": ShuttingDownError,
    "RunInterruptedError": ShuttingDownError,
    "StoreUnavailableError": StoreUnavailableError,
}
"""What a request for a run raises if the run has to be begun again, by the type of ADK's error."""

_NO_FILES: Final = tuple(f"[Errno {number}]" for number in (errno.EMFILE, errno.ENFILE))
"""How the error of a process, or of a machine, begins that can open no more files."""

_ENDED: Final = {
    RunStatus.CANCELLED: (HTTPStatus.CONFLICT, "was cancelled"),
    RunStatus.TIMED_OUT: (HTTPStatus.INTERNAL_SERVER_ERROR, "took longer than allowed"),
}
_FAILED: Final = (HTTPStatus.INTERNAL_SERVER_ERROR, "failed")


async def started_answer(runs: Runs, asked: Asked, started: Started, prefix: str) -> Response:
    """Return the answer to a message once it is stored, or could not be stored.

    The path in it begins with `prefix`, below which the application is served.

    Raises:
        StoreUnavailableError: the store does not answer.
        ShuttingDownError: the run was cancelled before its message was stored.
    """
    record, run = started.record, started.run
    if run is not None:
        await run.begun.wait()
        if not run.message_stored and run.error is not None:
            return _refusal(record, run.error)
        status, invocation_id = RunStatus.RUNNING, run.invocation_id
    else:
        known = await runs.message_known(asked, started.known)
        if not known.is_stored and known.run is not None and not known.run.in_flight:
            return _failure(known.run, is_stored=False)
        found = record if known.run is None else known.run
        status, invocation_id = found.status, found.invocation_id
    told = RunStarted(
        success=True,
        session_id=record.key.session_id,
        run_id=record.run_id,
        status=status,
        stream=prefix + _stream_path(record),
        invocation_id=invocation_id,
    )
    headers = {RUN_HEADER: record.run_id}
    return JSONResponse(told.model_dump(by_alias=True, mode="json"), headers=headers)


async def whole_answer(runs: Runs, asked: Asked, started: Started) -> Response:
    """Return the answer of `/run` once the run has ended: its events, as the store has them.

    So the first answer and that of each repeat are the same.

    Raises:
        StoreUnavailableError: the store does not answer.
        ShuttingDownError: the run was cancelled, or its process died, before the agent spoke.
        AnswerLostError: the same of an event of the agent, which the store has not taken.
    """
    record = await runs.ended(started.record)
    if record.status is RunStatus.DONE:
        events = [event async for event in stored_events(runs.store, record)]
        large = are_large(events)
        said = await asyncio.to_thread(_public, events) if large else _public(events)
        return JSONResponse(said, headers={RUN_HEADER: record.run_id})
    known = await runs.known(asked)
    error = record.error or error_of(record.status)
    if known.run is None and error is not None:
        return _refusal(record, error)
    return _failure(record, is_stored=known.is_stored)


async def plain_frames(runs: Runs, record: RunRecord) -> AsyncGenerator[bytes]:
    """Yield a run's stream as `/run_sse` of ADK sends it: without ids, comments and other kinds.

    A reader that was too slow goes on after the last frame it had.
    """
    cursor, is_whole = None, False
    while not is_whole:
        try:
            async for chunk in runs.follow(record, cursor):
                for frame in chunk.split(b"\n\n"):
                    lines = frame.split(b"\n")
                    ids = [line.removeprefix(ID) for line in lines if line.startswith(ID)]
                    cursor = Cursor.parse(ids[0].decode()) if ids else cursor
                    kind = next((end for end in ENDINGS if end in lines), None)
                    is_whole = is_whole or kind is not None
                    data = [line for line in lines if line.startswith(DATA)]
                    if data and kind is not ENDINGS[0]:
                        yield data[0] + b"\n\n"
        except LaggedError:
            continue
        if not is_whole:
            yield cut_frame()
            return


def _public(events: Sequence[EventRecord]) -> list[dict[str, Any]]:
    return [public_fields(read_event(event)) for event in events]


def _refusal(record: RunRecord, error: Mapping[str, Any]) -> Response:
    """Return the answer if a repeat of the request would begin a run.

    Raises:
        LapseError: the store does not answer, or the process of the run has ended.
    """
    kind = error["error_details"]["error_type"]
    said = error["error_details"]["error_message"]
    if kind in _OUTAGES:
        raise _OUTAGES[kind](said)
    if kind == "OSError" and said.startswith(_NO_FILES):
        raise StoreUnavailableError(said)
    headers = {RUN_HEADER: record.run_id}
    return JSONResponse({"detail": error["error"]}, _REFUSALS.get(kind, 500), headers)


def _failure(record: RunRecord, *, is_stored: bool) -> Response:
    """Return the answer if the run has ended for good, and not well."""
    status, what = _ENDED.get(record.status, _FAILED)
    told = "your message is stored; read the session, and do not send the message again"
    if not is_stored:
        told = "your message is not stored; send it again, but not with the same Idempotency-Key"
    answer = {
        "detail": f"The run {what}; {told}.",
        "runId": record.run_id,
        "stored": "yes" if is_stored else "no",
    }
    return JSONResponse(answer, status, {RUN_HEADER: record.run_id})


def _stream_path(record: RunRecord) -> str:
    app, user, session = (quote(part, safe="") for part in record.key)
    return f"/apps/{app}/users/{user}/sessions/{session}/run?runId={record.run_id}"
