"""Begins a run for a request: checks the body first, and gives up if the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request
from pydantic import ValidationError

from lapse.adk.private import run_request
from lapse.core.documents import encode
from lapse.core.request import Body
from lapse.limits.routes import is_large, refusal
from lapse.runs.run import Run

if TYPE_CHECKING:
    from lapse.adk.private import RunAgentRequest

RUN_HEADER: Final = "Lapse-Run"
"""The header of an answer that names its run."""


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


async def unless_disconnected(request: Request, begin: Callable[[], Awaitable[Run]]) -> Run | None:
    """Await `begin`, which may queue; return None if the client disconnects first.

    On disconnect `begin` is cancelled and awaited.
    """

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    beginning = asyncio.ensure_future(begin())
    leaving = asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({beginning, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return beginning.result() if beginning.done() else None
    finally:
        for task in (beginning, leaving):
            task.cancel()
        await asyncio.wait({beginning, leaving})
