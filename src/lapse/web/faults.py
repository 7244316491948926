"""What a client is told when something cannot be done: the status, the field, the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError

from lapse.errors import (
    InvalidValueError,
    NoSuchSessionError,
    OutdatedSessionError,
    StoreUnavailableError,
    WrongStatusError,
)

_RETRY_AFTER: Final = {"Retry-After": "1"}

Answer = Callable[[Request, Exception], Awaitable[JSONResponse]]


def install_faults(app: FastAPI) -> None:
    """Make Lapse's errors, and ADK's where ADK's routes let them through, into answers."""
    answers: dict[type[Exception], Answer] = {
        InvalidValueError: _answer(400),
        # One text for unknown, foreign and purged sessions: it tells nothing.
        NoSuchSessionError: _answer(404, "Session not found"),
        SessionNotFoundError: _answer(404, "Session not found"),
        WrongStatusError: _answer(409),
        OutdatedSessionError: _answer(409),
        StaleSessionError: _answer(409),
        StoreUnavailableError: _answer(
            503, "The session store does not answer; try again in a moment.", _RETRY_AFTER
        ),
    }
    for error, answer in answers.items():
        app.add_exception_handler(error, answer)


def _answer(status: int, text: str = "", headers: dict[str, str] | None = None) -> Answer:
    async def answer(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": text or str(error)}, status, headers=headers)

    return answer
