"""The routes of detached runs, at `…/sessions/{session_id}/run`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from lapse.adk.context import reviving
from lapse.adk.run_sse import Opener
from lapse.adk.service import LapseSessionService
from lapse.core.keys import SessionKey, check_key
from lapse.core.lifecycle import Cause
from lapse.core.messages import may_be_first
from lapse.core.request import Body, body_of, decoded, root_of
from lapse.idempotency.request import keyed_request
from lapse.idempotency.rules import KeyRules
from lapse.limits.body import hold_body
from lapse.limits.routes import DocumentRoute
from lapse.runs.answers import RUN_HEADER, started_answer
from lapse.runs.beginning import resuming, unless_disconnected, validated
from lapse.runs.bodies import IfBusy, RunBody, RunBodyOut, RunStarted
from lapse.runs.cursor import Cursor
from lapse.runs.run import Asked, Chunks
from lapse.runs.runs import Runs
from lapse.runs.sse import EventStream

if TYPE_CHECKING:
    from lapse.adk.private.wire import RunAgentRequest

_EVENT_STREAM: Final = "text/event-stream"
_SSE_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {_EVENT_STREAM: {}}}}


def _key(app_name: str, user_id: str, session_id: str) -> SessionKey:
    return check_key(SessionKey(decoded(app_name), decoded(user_id), decoded(session_id).strip()))


Key = Annotated[SessionKey, Depends(_key)]


def run_routes(  # noqa: C901 - one function for each route
    service: LapseSessionService, runs: Runs, opener: Opener, keys: KeyRules
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
        wanted = await _wanted(key, body, body_of(request.scope))

        async def open_chunks(stored: str | None) -> Chunks:
            await service.ensure_legacy_session(key)
            return await opener(resuming(wanted, stored))

        once = await keyed_request(request.scope, keys, key, "run")
        asked = Asked(key, open_chunks, lambda: hold_body(request.scope), once)
        begin = partial(runs.begin, asked, queue=body.if_busy is IfBusy.QUEUE)
        cause = Cause.RUN if may_be_first(body.content) else Cause.REQUEST
        with reviving(key, cause=cause):
            started = await unless_disconnected(request, begin)
        if started is None:
            return Response(status_code=499)
        if _EVENT_STREAM in accept:
            headers = {RUN_HEADER: started.record.run_id}
            return EventStream(runs.follow(started.record), headers)
        return await started_answer(runs, asked, started, root_of(request.scope))

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


async def _wanted(key: SessionKey, body: RunBody, read: Body | None) -> RunAgentRequest:
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


def _utf8(header: str) -> str:
    """Decode a header that browsers send as UTF-8 and Starlette reads as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header
