"""Calls the endpoint of ADK's `/run_sse` without a connection.

A detached run sends byte for byte what `/run_sse` sends, because ADK's own endpoint makes the
chunks, with its runners, its checks and its errors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import StreamingResponse

from lapse.adk.private.servers import app_of_runners

if TYPE_CHECKING:
    from google.adk.runners import Runner as Runner  # noqa: PLC0414 - for others' annotations

    from lapse.adk.private.wire import RunAgentRequest
    from lapse.adk.service import LapseSessionService

Chunks = AsyncIterator[str | bytes | memoryview]
Opener = Callable[["RunAgentRequest"], Awaitable[Chunks]]
"""Takes the body of a `/run_sse` and returns the chunks of its answer.

The request is checked at once; the agent runs while the chunks are iterated.
"""


def opener_of(app: FastAPI) -> Opener | None:
    """Return the opener for an application's `/run_sse`, or None if it has no such route."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path == "/run_sse":
            return _opener(route.endpoint)
    return None


def opener_for(runners: Iterable[Runner], service: LapseSessionService) -> Opener:
    """Return an opener for these runners, each of which serves the app it names."""
    opener = opener_of(app_of_runners(runners, service))
    assert opener is not None, "ADK's server has a /run_sse"
    return opener


def _opener(endpoint: Callable[..., Awaitable[StreamingResponse]]) -> Opener:
    async def open_chunks(asked: RunAgentRequest) -> Chunks:
        response = await endpoint(asked)
        return aiter(response.body_iterator)

    return open_chunks
