"""How runs get at ADK: its own `/run_sse`, called without a connection.

What a run sends is what ADK's endpoint sends, to the byte, because it is that endpoint that
writes it: its runners, its checks, its errors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import StreamingResponse

from lapse.adk.private import app_of_runners

if TYPE_CHECKING:
    from google.adk.runners import Runner as Runner  # noqa: PLC0414 - for others' annotations

    from lapse.adk.private import RunAgentRequest
    from lapse.adk.service import LapseSessionService

Chunks = AsyncIterator[str | bytes | memoryview]
Opener = Callable[["RunAgentRequest"], Awaitable[Chunks]]
"""Takes the body of a `/run_sse`; returns what it would send, which runs as it is iterated."""


def opener_of(app: FastAPI) -> Opener | None:
    """Return the opener of an application that has ADK's `/run_sse`; None for any other."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path == "/run_sse":
            return _opener(route.endpoint)
    return None


def opener_for(runners: Iterable[Runner], service: LapseSessionService) -> Opener:
    """Return an opener that has ADK's server run these runners, each for its own app."""
    opener = opener_of(app_of_runners(runners, service))
    assert opener is not None, "ADK's server has a /run_sse"
    return opener


def _opener(endpoint: Callable[..., Awaitable[StreamingResponse]]) -> Opener:
    async def open_chunks(asked: RunAgentRequest) -> Chunks:
        response = await endpoint(asked)
        return aiter(response.body_iterator)

    return open_chunks
