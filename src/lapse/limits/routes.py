"""FastAPI's routes on a body that was read and parsed before they are called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError

from lapse.core.request import Body, body_of
from lapse.limits.rules import SMALL_BODY

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Validator = Callable[[Any], Any]
T = TypeVar("T")

_MANY_VALUES: Final = 200
"""JSON with more values is validated in a thread."""

_MANY_FAULTS: Final = 1_000
"""Of more faults only the number is told: to tell each takes longer than to find it."""


class DocumentRequest(Request):
    """A request whose JSON was parsed before, and may have been validated."""

    validated: Any = None

    async def json(self) -> Any:
        """Return the JSON of the body, or what was made of it.

        Raises:
            ValueError: it is none; as `json.loads` raises it.
        """
        body = body_of(self.scope)
        if body is None or not body.is_document:
            return await super().json()
        if body.error is not None:
            raise body.error
        return body.document if self.validated is None else self.validated


def reading(handler: Handler, validator: Validator | None = None) -> Handler:
    """Return a route's handler that does not parse JSON again.

    With a validator, which makes of a document what the route takes, large documents are
    validated in a thread. FastAPI takes an object of the right class for valid.
    """

    async def handle(request: Request) -> Response:
        read = DocumentRequest(request.scope, request.receive)
        body = body_of(request.scope)
        if validator is not None and body is not None and body.error is None and is_large(body):
            try:
                read.validated = await asyncio.to_thread(validator, body.document)
            except ValidationError as error:
                raise refusal(error) from error
        return await handler(read)

    return handle


def is_large(body: Body) -> bool:
    """Return whether what is done with a document takes so long that a thread should do it."""
    return body.is_document and (body.values > _MANY_VALUES or len(body.raw) > SMALL_BODY)


def refusal(error: ValidationError) -> RequestValidationError:
    """Return what FastAPI would raise in place of pydantic's error, without the input."""
    count = error.error_count()
    if count > _MANY_FAULTS:
        return RequestValidationError(
            [{"type": "too_many_faults", "loc": ("body",), "msg": f"has {count} faults"}]
        )
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults])


class DocumentRoute(APIRoute):
    """A route of Lapse's own that does not parse JSON again."""

    def get_route_handler(self) -> Handler:
        """Return what FastAPI calls for a request."""
        return reading(super().get_route_handler())
