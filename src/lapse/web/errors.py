"""What a client is told when something cannot be done: the status, the field, the reason."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from itertools import islice
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import (
    http_exception_handler,
    request_validation_exception_handler,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.endpoints import answer_of, before_endpoint, validator_of
from lapse.adk.errors import (
    MODEL_FAULTS,
    InputValidationError,
    NoSuchAgentError,
    SessionNotFoundError,
    StaleSessionError,
    UnreadableBodyError,
    without_paths,
)
from lapse.core.errors import (
    AnswerLostError,
    HeldEventsFullError,
    InvalidValueError,
    KeyReusedError,
    NoSuchRunError,
    NoSuchSessionError,
    NotAsShownError,
    NotWithThisServiceError,
    NotWithThisStoreError,
    OutcomeUnknownError,
    OutdatedSessionError,
    RunInFlightError,
    ShuttingDownError,
    StoreUnavailableError,
    TooManyArtifactsError,
    TooManyCreatesError,
    TooManyKeysError,
    TooManyRunsError,
    TooManyStreamsError,
    WrongStatusError,
)
from lapse.core.request import decode_parameters
from lapse.idempotency.request import sent_key
from lapse.limits.routes import reading
from lapse.runs.plain import PLAIN_RUN, PlainRun

Answer = Callable[[Request, Exception], Awaitable[Response]]

_NOT_FOUND: Final = "Session not found"

_MOST_FAULTS: Final = 20
"""How many faults of a body an answer names."""

_LONGEST_PLACE: Final = 20
"""How many steps lead to a fault in an answer; a step is a name or a number."""

_LONGEST_WORDS: Final = 300
"""Characters of a fault's text, or of one step to it: names come from the client, too."""


_NO_FILES: Final = {errno.EMFILE, errno.ENFILE}
"""The process, or the machine, can open no more files."""


_HIDDEN: Final[tuple[type[Exception], ...]] = (
    InvalidValueError,
    KeyReusedError,
    NoSuchSessionError,
    StoreUnavailableError,
    TooManyCreatesError,
    TooManyKeysError,
)
"""Errors that ADK's routes answer as errors of their own."""


def install_faults(app: FastAPI, *, on_outage: Callable[[], None] = lambda: None) -> None:
    """Make Lapse's errors, and ADK's where ADK's routes let them through, into answers.

    `on_outage` is called for each request that the store did not answer.
    """

    async def unavailable(request: Request, error: Exception) -> Response:
        on_outage()
        return unavailable_answer(error, request.scope)

    async def refused(request: Request, error: Exception) -> Response:
        # ADK's create route makes errors of its own of all that it does not know.
        cause = error.__cause__
        kind = next((kind for kind in _HIDDEN if isinstance(cause, kind)), None)
        if kind is not None and isinstance(cause, Exception):
            return await answers[kind](request, cause)
        return await _refused(request, error)

    answers: dict[type[Exception], Answer] = {
        InvalidValueError: _answer(400),
        InputValidationError: _answer(400),
        # One text for unknown, foreign and purged sessions: it tells nothing.
        NoSuchSessionError: _answer(404, _NOT_FOUND),
        SessionNotFoundError: _answer(404, _NOT_FOUND),
        WrongStatusError: _answer(409),
        NotAsShownError: _answer(409),
        TooManyStreamsError: _answer(429),
        TooManyArtifactsError: _answer(413),
        HeldEventsFullError: _answer(413),
        OutdatedSessionError: _answer(409),
        StaleSessionError: _answer(409),
        StoreUnavailableError: unavailable,
        NoSuchRunError: _answer(
            404, "Run not found; read the session's latest run, or the session"
        ),
        NotWithThisStoreError: _answer(501, "Not with this store; use SQLite or PostgreSQL"),
        NotWithThisServiceError: _answer(501),
        RunInFlightError: _busy,
        TooManyCreatesError: _too_fast,
        TooManyRunsError: _answer(429, headers={"Retry-After": "1"}),
        KeyReusedError: _answer(422),
        TooManyKeysError: _answer(429, headers={"Retry-After": _AFTER_KEYS}),
        ShuttingDownError: _answer(503, headers={"Retry-After": "1"}),
        # ADK's own routes answer the first by themselves, its developer routes do not.
        NoSuchAgentError: _answer(404),
        UnreadableBodyError: _answer(
            422, "body: must be one of this route; look at its OpenAPI document"
        ),
    }
    for error, answer in answers.items():
        app.add_exception_handler(error, answer)
    defaults: dict[type[Exception], tuple[Any, Answer]] = {
        StarletteHTTPException: (http_exception_handler, refused),
        RequestValidationError: (request_validation_exception_handler, _not_valid),
        OSError: (None, _short_of_files),
    }
    for error, (default, answer) in defaults.items():
        # An application's own handlers stay.
        if app.exception_handlers.get(error) is default:
            app.add_exception_handler(error, answer)
    if not {Exception, 500} & app.exception_handlers.keys():
        app.add_exception_handler(Exception, _failed)
    _tell_bodies_from_faults(route for route in app.routes if isinstance(route, APIRoute))


_has_begun: ContextVar[list[bool]] = ContextVar("lapse_endpoint_has_begun")
"""Of the request in hand: one element once its route's endpoint was called."""


def _tell_bodies_from_faults(routes: Iterable[APIRoute]) -> None:
    """Have routes raise UnreadableBodyError where the validation of a request fails.

    Validators of ADK's models raise other errors than pydantic expects of them. The same errors
    are faults when the endpoint raises them, or what is done with the endpoint's answer.
    """
    for route in routes:
        answer = answer_of(route, partial(reading, validator=validator_of(route)))
        before_endpoint(route, lambda: _has_begun.get([]).append(True))
        route.app = _with_body_errors(answer)


def _with_body_errors(answer: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        decode_parameters(scope)
        begun: list[bool] = []
        token = _has_begun.set(begun)
        try:
            await answer(scope, receive, send)
        except MODEL_FAULTS as error:
            if not begun:
                raise UnreadableBodyError("the body must be one of this route") from error
            run: PlainRun | None = scope.get(PLAIN_RUN)
            if (
                run is None
                or run.message_stored
                or type(error) not in {ValueError, ValidationError}
            ):
                raise
            # ADK's runner raises this for a message that it does not accept.
            reason = (
                str(error)
                if type(error) is ValueError
                else "must have a message that ADK's Runner takes"
            )
            raise InvalidValueError("body", reason) from error
        finally:
            _has_begun.reset(token)

    return app


class _AsciiResponse(JSONResponse):
    """JSON that can say what UTF-8 cannot: half of a character."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


class Stored(StrEnum):
    """Whether the message or change of a request is stored: the field `stored` of an answer."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


_TOLD: Final = {
    Stored.YES: (
        "Your message is stored, but the session store broke off before the whole answer was; "
        "read the session, and do not send the message again."
    ),
    Stored.NO: "The session store does not answer, and nothing was changed; try again in a moment.",
    Stored.UNKNOWN: (
        "The session store broke off, and your request may have been carried out; look before you "
        "send it again, or send it with an Idempotency-Key."
    ),
}
_KEYED: Final = (
    "The session store does not answer; repeat the request with the same Idempotency-Key, and "
    "nothing is done twice."
)
_THEN: Final = {
    Stored.YES: (
        "The request was broken off, because {}; your message is stored: read the session, and do "
        "not send the message again."
    ),
    Stored.NO: "The request was broken off, because {}, and nothing was changed; try again.",
    Stored.UNKNOWN: (
        "The request was broken off, because {}, and it may have been carried out; look before you "
        "send it again, or send it with an Idempotency-Key."
    ),
}
_THEN_KEYED: Final = (
    "The request was broken off, because {}; repeat it with the same Idempotency-Key, and nothing "
    "is done twice."
)
_THEN_READ: Final = "The request was broken off, because {}; try again in a moment."
_AFTER_KEYS: Final = "3600"
_READ: Final = "The session store does not answer; try again in a moment."


def unavailable_answer(error: Exception, scope: Scope) -> Response:
    """Answer 503, and tell whether the request may have been carried out all the same."""
    answer = {"detail": _READ}
    if scope["method"] not in {"GET", "HEAD"}:
        stored = _stored(error, scope)
        told = _TOLD[stored] if sent_key(scope) is None else _KEYED
        answer = {"detail": told, "stored": stored}
    return JSONResponse(answer, 503, headers={"Retry-After": "1"})


def stopped_answer(scope: Scope) -> Response:
    """Answer 503 to a request that the server has broken off, because it shuts down."""
    return _cut_off("this server shuts down", scope, OutcomeUnknownError())


def _cut_off(why: str, scope: Scope, error: Exception) -> Response:
    """Answer 503, and tell why, and whether the request may have been carried out all the same."""
    answer = {"detail": _THEN_READ.format(why)}
    if scope["method"] not in {"GET", "HEAD"}:
        stored = _stored(error, scope)
        told = _THEN[stored] if sent_key(scope) is None else _THEN_KEYED
        answer = {"detail": told.format(why), "stored": stored}
    return JSONResponse(answer, 503, headers={"Retry-After": "1"})


def _stored(error: Exception, scope: Scope) -> Stored:
    run: PlainRun | None = scope.get(PLAIN_RUN)
    if isinstance(error, AnswerLostError) or (run is not None and run.message_stored):
        return Stored.YES
    # A request with a key may be a repeat, and may have read what an earlier one has stored.
    is_known = not isinstance(error, OutcomeUnknownError) and sent_key(scope) is None
    return Stored.NO if is_known else Stored.UNKNOWN


async def _refused(request: Request, error: Exception) -> Response:
    """Answer as FastAPI does, also where the detail quotes half of a character."""
    assert isinstance(error, StarletteHTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND and isinstance(error.__cause__, ValueError):
        # Made by ADK of what a loader says of an agent's name, which may not be Lapse's loader.
        error.detail = without_paths(error.detail)
    detail: Any = error.detail
    if isinstance(detail, list) and detail and isinstance(detail[0], dict) and "loc" in detail[0]:
        # Some of ADK's routes validate by themselves, and tell all that pydantic does.
        error.detail = _faults(detail)  # type: ignore[assignment]
    try:
        return await http_exception_handler(request, error)
    except UnicodeEncodeError:
        return _AsciiResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _short_of_files(request: Request, error: Exception) -> Response:
    """Answer 503 if no file can be opened: by then a run may need one for its first import."""
    if not isinstance(error, OSError) or error.errno not in _NO_FILES:
        raise error
    # What a route without a run has done by then is not known here.
    known = error if PLAIN_RUN in request.scope else OutcomeUnknownError()
    return _cut_off("this server can open no more files", request.scope, known)


async def _too_fast(_request: Request, error: Exception) -> Response:
    """Answer 429, and tell when to come again."""
    assert isinstance(error, TooManyCreatesError)
    seconds = max(1, math.ceil(error.retry_after.total_seconds()))
    return JSONResponse({"detail": str(error)}, 429, headers={"Retry-After": str(seconds)})


async def _not_valid(_request: Request, error: Exception) -> Response:
    """Answer as FastAPI does, but with the first faults only, and without the input.

    A body may have as many faults as values, and FastAPI would quote the input in each.
    """
    assert isinstance(error, RequestValidationError)
    return _AsciiResponse({"detail": _faults(error.errors())}, 422)


def _faults(told: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "type": fault["type"],
            "loc": [_shortened(part) for part in fault["loc"][:_LONGEST_PLACE]],
            "msg": _shortened(fault["msg"]),
        }
        for fault in islice(told, _MOST_FAULTS)
    ]


def _shortened(told: Any) -> Any:
    return told[:_LONGEST_WORDS] if isinstance(told, str) else told


async def _busy(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RunInFlightError)
    return busy_answer(error)


def busy_answer(error: RunInFlightError) -> Response:
    """Answer 409, and name the run in flight, if it is a detached run."""
    return JSONResponse({"detail": str(error), "runId": error.run_id or None}, 409)


async def _failed(request: Request, _error: Exception) -> Response:
    """Answer as Starlette does, and say that the server will close the connection.

    The error goes on to the server, which then does; a next request would only see a reset.
    """
    headers = {"Connection": "close"} if request.scope["http_version"].startswith("1") else None
    return PlainTextResponse("Internal Server Error", 500, headers)


def _answer(status: int, text: str = "", headers: dict[str, str] | None = None) -> Answer:
    async def answer(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": text or str(error)}, status, headers)

    return answer
