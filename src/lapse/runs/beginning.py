"""What a request for a run needs before one begins: its body checked, and its client there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from lapse.adk.private.wire import run_request
from lapse.core.documents import encode
from lapse.core.request import Body
from lapse.limits.routes import is_large, refusal

if TYPE_CHECKING:
    from lapse.adk.private.wire import RunAgentRequest

T = TypeVar("T")


async def validated(asked: Mapping[str, Any], body: Body | None) -> RunAgentRequest:
    """Return the body of a `/run_sse` as ADK's model; it is checked before a run begins.

    Args:
        asked: the fields of the `/run_sse`.
        body: the body that they come from; if it is large, a thread validates them.

    Raises:
        RequestValidationError: the body is not valid for ADK.
        UnreadableBodyError: ADK's validation crashed.
        InvalidValueError: the message or the state cannot be stored.
    """
    if body is not None and is_large(body):
        return await asyncio.to_thread(_validated, asked)
    return _validated(asked)


def _validated(asked: Mapping[str, Any]) -> RunAgentRequest:
    try:
        request = run_request(asked)
    except ValidationError as error:
        raise refusal(error) from error
    for field in ("newMessage", "stateDelta"):
        encode(asked.get(field), what=field)
    return request


def resuming(asked: RunAgentRequest, stored: str | None) -> RunAgentRequest:
    """Return the request of a run whose message is stored already, in an invocation it has opened.

    ADK's runner then does not store the message again. Its change of state is stored with it.
    """
    if stored is None:
        return asked
    return asked.model_copy(update={"invocation_id": stored, "state_delta": None})


async def unless_disconnected(request: Request, work: Callable[[], Awaitable[T]]) -> T | None:
    """Await `work`, which may take long; return None if the client disconnects first.

    On disconnect `work` is cancelled and awaited; nobody is left to hear of its failure.
    """

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work())
    leaving = asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
