"""Answers to requests that the server breaks off when it shuts down."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapse.web.errors import stopped_answer


class StoppedMiddleware:
    """Answers 503 where the server cancels a request that has no answer yet.

    uvicorn does so when its time to shut down is over, and would answer 500: nobody could tell
    whether a message is stored.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def noting(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if not is_answered:
                await stopped_answer(scope)(scope, receive, send)
            raise
