"""The routes of detached runs, at `…/sessions/{session_id}/run`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from lapse.adk.run_sse import Opener
from lapse.adk.service import LapseSessionService
from lapse.core.errors import (
    LapseError,
    OutcomeUnknownError,
    ShuttingDownError,
    StoreUnavailableError,
)
from lapse.core.keys import SessionKey, check_key
from lapse.core.request import Body, body_of, decoded, root_of
from lapse.limits.body import hold_body
from lapse.limits.routes import DocumentRoute
from lapse.runs.beginning import RUN_HEADER, unless_disconnected, validated
from lapse.runs.bodies import IfBusy, RunBody, RunBodyOut, RunStarted
from lapse.runs.cursor import Cursor
from lapse.runs.run import Asked, Run
from lapse.runs.runs import Runs
from lapse.runs.sse import EventStream
from lapse.runs.store import RunRecord, RunStatus

if TYPE_CHECKING:
    from lapse.adk.private import RunAgentRequest

_EVENT_STREAM: Final = "text/event-stream"
_REFUSALS: Final = {
    "InvalidValueError": 400,
    "SharedStateFullError": 400,
    "ValueError": 400,
    "SessionNotFoundError": 404,
    "StaleSessionError": 409,
}
"""The status of the answer if the message could not be stored, by the type of ADK's error."""

_OUTAGES: Final[Mapping[str, type[LapseError]]] = {
    "StoreUnavailableError": StoreUnavailableError,
    "OutcomeUnknownError": OutcomeUnknownError,
    "RunCancelledError": ShuttingDownError,
}
"""What a request for a run raises then, by the type of ADK's error."""

_SSE_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {_EVENT_STREAM: {}}}}


def _key(app_name: str, user_id: str, session_id: str) -> SessionKey:
    return check_key(SessionKey(decoded(app_name), decoded(user_id), decoded(session_id).strip()))


Key = Annotated[SessionKey, Depends(_key)]


def run_routes(  # noqa: C901 - one function for each route
    service: LapseSessionService, runs: Runs, opener: Opener
) -> APIRouter:
    """Return a router with the routes of runs."""
    router = APIRouter(
        prefix="/apps/{app_name}/users/{user_id}/sessions/{session_id}/run",
        tags=["runs"],
        route_class=DocumentRoute,
    )

    @router.post("", response_model=RunStarted, responses=_SSE_RESPONSE)
    async def run(
        key: Key, body: RunBody, request: Request, accept: Annotated[str, Header()] = ""
    ) -> Any:
        """Post a message and start a run; `Accept: text/event-stream` asks for its stream."""
        asked = await _asked(key, body, body_of(request.scope))

        async def begin() -> Run:
            await service.ensure_legacy_session(key)
            run = Asked(key, lambda: opener(asked), lambda: hold_body(request.scope))
            return await runs.begin(run, queue=body.if_busy is IfBusy.QUEUE)

        started = await unless_disconnected(request, begin)
        if started is None:
            return Response(status_code=499)
        headers = {RUN_HEADER: started.record.run_id}
        if _EVENT_STREAM in accept:
            return EventStream(runs.follow(started.record), headers)
        await started.begun.wait()
        return _started(started, root_of(request.scope))

    async def reader(key: Key) -> AsyncIterator[None]:
        """Count the reader until the response has ended."""
        with runs.plain.reader(key):
            yield

    reading = [Depends(reader)]

    @router.get("", responses=_SSE_RESPONSE, response_class=Response, dependencies=reading)
    async def stream(
        key: Key,
        run_id: Annotated[str | None, Query(alias="runId")] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Stream the latest run or the run `runId`; with `Last-Event-ID`, resume its stream."""
        cursor = None if not last_event_id else Cursor.parse(_utf8(last_event_id))
        record = await runs.find(key, run_id, cursor)
        if cursor is not None and cursor.is_end:
            # The client has everything. A 204 tells a browser to stop reconnecting.
            return Response(status_code=204)
        return EventStream(runs.follow(record, cursor), {RUN_HEADER: record.run_id})

    @router.get("/{run_id}")
    async def read(key: Key, run_id: str) -> RunBodyOut:
        """Return a run's record."""
        return RunBodyOut.of(await runs.find(key, run_id))

    @router.delete("/{run_id}")
    async def cancel(key: Key, run_id: str, response: Response) -> RunBodyOut:
        """Cancel a run; a run that has ended is left as it is."""
        record = await runs.cancel(key, run_id)
        if record.in_flight:
            response.status_code = 202
        return RunBodyOut.of(record)

    return router


async def _asked(key: SessionKey, body: RunBody, read: Body | None) -> RunAgentRequest:
    """Return the body of the `/run_sse` that this request stands for; `read` is its own body."""
    asked: dict[str, Any] = {
        "appName": key.app_name,
        "userId": key.user_id,
        "sessionId": key.session_id,
        "newMessage": body.content,
        "streaming": body.streaming,
    }
    if body.state_delta:
        asked["stateDelta"] = body.state_delta
    return await validated(asked, read)


def _started(run: Run, prefix: str) -> Response:
    """Return the answer to a message that has been stored, or could not be stored.

    The path in it begins with `prefix`, below which the application is served.

    Raises:
        StoreUnavailableError: the store does not answer.
        ShuttingDownError: the run was cancelled before its message was stored.
    """
    headers = {RUN_HEADER: run.record.run_id}
    if not run.message_stored and run.error is not None:
        kind = run.error["error_details"]["error_type"]
        if kind in _OUTAGES:
            raise _OUTAGES[kind](run.error["error"])
        return JSONResponse({"detail": run.error["error"]}, _REFUSALS.get(kind, 500), headers)
    told = RunStarted(
        success=True,
        session_id=run.record.key.session_id,
        run_id=run.record.run_id,
        status=RunStatus.RUNNING,
        stream=prefix + _stream_path(run.record),
        invocation_id=run.invocation_id,
    )
    return JSONResponse(told.model_dump(by_alias=True, mode="json"), headers=headers)


def _stream_path(record: RunRecord) -> str:
    app, user, session = (quote(part, safe="") for part in record.key)
    return f"/apps/{app}/users/{user}/sessions/{session}/run?runId={record.run_id}"


def _utf8(header: str) -> str:
    """Decode a header that browsers send as UTF-8 and Starlette reads as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header
