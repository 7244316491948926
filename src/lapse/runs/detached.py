"""`/run_sse` for requests with the header `Lapse-Detach: true`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.routing import Match, Route
from starlette.types import Scope

from lapse.adk.run_sse import Opener
from lapse.core.keys import SessionKey, check_key
from lapse.core.request import body_of, route_path
from lapse.limits.body import hold_body
from lapse.runs.beginning import RUN_HEADER, unless_disconnected, validated
from lapse.runs.bodies import IfBusy
from lapse.runs.run import Asked
from lapse.runs.runs import Runs
from lapse.runs.sse import EventStream

if TYPE_CHECKING:
    from lapse.adk.private import RunAgentRequest

_PATH: Final = "/run_sse"
_DETACH: Final = b"lapse-detach"
_DONE: Final = b"event: done\n"


def is_detached(scope: Scope) -> bool:
    """Return whether a request to `/run_sse` has the header `Lapse-Detach: true`.

    On every other route the header means nothing.
    """
    if scope["type"] != "http" or route_path(scope) != _PATH:
        return False
    value: bytes = dict(scope["headers"]).get(_DETACH, b"")
    return value.strip().lower() == b"true"


class DetachedRoute(Route):
    """Answers `/run_sse` for requests with the header `Lapse-Detach: true`.

    Other requests do not match and reach ADK's own route.
    """

    def __init__(self, runs: Runs, opener: Opener, *, default_app: str | None) -> None:
        async def run_sse(request: Request) -> Response:
            asked, if_busy = await _asked(request, default_app)
            key = check_key(SessionKey(asked.app_name or "", asked.user_id, asked.session_id))
            run = Asked(key, lambda: opener(asked), lambda: hold_body(request.scope))
            started = await unless_disconnected(
                request, lambda: runs.begin(run, queue=if_busy is IfBusy.QUEUE)
            )
            if started is None:
                return Response(status_code=499)
            record = started.record
            return EventStream(_as_adk(runs.follow(record)), {RUN_HEADER: record.run_id})

        super().__init__(_PATH, run_sse, methods=["POST"], include_in_schema=False)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only requests for a detached run."""
        if not is_detached(scope):
            return Match.NONE, {}
        return super().matches(scope)


async def _as_adk(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes]:
    """Remove the data of the `done` frame, because ADK's clients parse all data as events."""
    async with aclosing(chunks):
        async for chunk in chunks:
            end = chunk.startswith(_DONE)
            yield chunk[: chunk.index(b"data: ")] + b"\n" if end else chunk


async def _asked(request: Request, default_app: str | None) -> tuple[RunAgentRequest, IfBusy]:
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
