"""Beginning a run for a request: its checks, its turn, its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from lapse.adk.private import run_request
from lapse.core.documents import encode
from lapse.runs.run import Run

if TYPE_CHECKING:
    from lapse.adk.private import RunAgentRequest

RUN_HEADER: Final = "Lapse-Run"
"""Names the run that an answer is about."""


def validated(asked: Mapping[str, Any]) -> RunAgentRequest:
    """Return what is asked of ADK, before anything is begun.

    Raises:
        RequestValidationError: ADK would not accept it.
        UnreadableBodyError: ADK would fail over it.
        InvalidValueError: no store could keep it.
    """
    try:
        request = run_request(asked)
    except ValidationError as error:
        raise RequestValidationError(
            [fault | {"loc": ("body", *fault["loc"])} for fault in error.errors()]
        ) from error
    for field in ("newMessage", "stateDelta"):
        encode(asked.get(field), what=field)
    return request


async def unless_gone(request: Request, begin: Callable[[], Awaitable[Run]]) -> Run | None:
    """Begin, which may take its turn; None when the client has gone before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    beginning = asyncio.ensure_future(begin())
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({beginning, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return beginning.result() if beginning.done() else None
    finally:
        for task in (beginning, leaving):
            task.cancel()
        await asyncio.wait({beginning, leaving})
