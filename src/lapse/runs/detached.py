"""`/run` and `/run_sse` for requests whose run outlives its connection, as their headers say."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.routing import Match, Route
from starlette.types import Scope

from lapse.adk.run_sse import Opener
from lapse.core.keys import SessionKey, check_key
from lapse.core.request import body_of, route_path
from lapse.idempotency.request import keyed_request, sent_key
from lapse.idempotency.rules import KeyRules
from lapse.limits.body import hold_body
from lapse.runs.answers import RUN_HEADER, plain_frames, whole_answer
from lapse.runs.beginning import resuming, unless_disconnected, validated
from lapse.runs.bodies import IfBusy
from lapse.runs.frames import ENDINGS
from lapse.runs.run import Asked
from lapse.runs.runs import Runs
from lapse.runs.sse import EventStream
from lapse.runs.starting import Started

if TYPE_CHECKING:
    from lapse.adk.private.wire import RunAgentRequest

_RUN: Final = "/run"
_RUN_SSE: Final = "/run_sse"
_DETACH: Final = b"lapse-detach"
_DONE: Final = ENDINGS[0] + b"\n"


def outlives_connection(scope: Scope) -> bool:
    """Return whether a request to one of ADK's routes asks for a run that outlives its connection.

    It does so by the header `Idempotency-Key`, and at `/run_sse` by `Lapse-Detach: true`. On every
    other route the headers mean nothing here.
    """
    if scope["type"] != "http" or (path := route_path(scope)) not in {_RUN, _RUN_SSE}:
        return False
    return _is_detached(scope, path) or sent_key(scope) is not None


def _is_detached(scope: Scope, path: str) -> bool:
    value: bytes = dict(scope["headers"]).get(_DETACH, b"")
    return path == _RUN_SSE and value.strip().lower() == b"true"


def detached_routes(
    runs: Runs, opener: Opener, keys: KeyRules, *, default_app: str | None
) -> list[Route]:
    """Return the routes for requests to `/run` and `/run_sse` that `outlives_connection` means.

    Other requests do not match them and reach ADK's own routes.
    """

    async def begun(request: Request) -> tuple[Asked, Started] | None:
        path = route_path(request.scope)
        wanted, if_busy = await _wanted(request, default_app)
        if path == _RUN:
            wanted.streaming = False
        key = check_key(SessionKey(wanted.app_name or "", wanted.user_id, wanted.session_id))
        asked = Asked(
            key,
            lambda stored: opener(resuming(wanted, stored)),
            lambda: hold_body(request.scope),
            await keyed_request(request.scope, keys, key, path),
        )
        begin = partial(runs.begin, asked, queue=if_busy is IfBusy.QUEUE)
        started = await unless_disconnected(request, begin)
        return None if started is None else (asked, started)

    async def run(request: Request) -> Response:
        found = await begun(request)
        if found is None:
            return Response(status_code=499)
        answer = await unless_disconnected(request, lambda: whole_answer(runs, *found))
        return answer or Response(status_code=499)

    async def run_sse(request: Request) -> Response:
        found = await begun(request)
        if found is None:
            return Response(status_code=499)
        record = found[1].record
        headers = {RUN_HEADER: record.run_id}
        if _is_detached(request.scope, _RUN_SSE):
            return EventStream(_as_adk(runs.follow(record)), headers)
        return EventStream(plain_frames(runs, record), headers, first=b"")

    return [_DetachedRoute(_RUN, run), _DetachedRoute(_RUN_SSE, run_sse)]


class _DetachedRoute(Route):
    def __init__(self, path: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, answer, methods=["POST"], include_in_schema=False)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only requests for a run that outlives its connection."""
        if not outlives_connection(scope):
            return Match.NONE, {}
        return super().matches(scope)


async def _as_adk(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes]:
    """Remove the data of the `done` frame, because ADK's clients parse all data as events."""
    async with aclosing(chunks):
        async for chunk in chunks:
            end = chunk.startswith(_DONE)
            yield chunk[: chunk.index(b"data: ")] + b"\n" if end else chunk


async def _wanted(request: Request, default_app: str | None) -> tuple[RunAgentRequest, IfBusy]:
    """Return the body of a `/run_sse`, and its field `ifBusy`, which only detached runs have.

    Raises:
        RequestValidationError: the body is not valid for ADK, or it has no message.
    """
    body = body_of(request.scope)
    if body is None or body.error is not None or not isinstance(body.document, dict):
        raise RequestValidationError([_fault("body", "must be a JSON object, as for /run_sse")])
    try:
        if_busy = IfBusy(body.fields.get("ifBusy", IfBusy.REJECT))
    except ValueError as error:
        raise RequestValidationError([_fault("ifBusy", "must be reject or queue")]) from error
    asked = await validated(body.fields, body)
    asked.app_name = asked.app_name or default_app
    if not asked.app_name:
        raise HTTPException(400, "app_name is required when ADK_DEFAULT_APP_NAME is not set")
    if asked.new_message is None and asked.invocation_id is None:
        raise RequestValidationError([_fault("newMessage", "a detached run needs a message")])
    return asked, if_busy


def _fault(field: str, reason: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ("body", field), "msg": reason, "input": None}
