"""Gives FastAPI's routes the body that has been parsed, and validates large bodies in a thread."""

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
"""Of more faults only the number is told: describing one takes longer than finding it."""


class DocumentRequest(Request):
    """A request whose JSON has been parsed, and perhaps validated."""

    validated: Any = None

    async def json(self) -> Any:
        """Return the validated object if there is one; else the JSON of the body.

        Raises:
            ValueError: the body is not JSON; the error is that of `json.loads`.
        """
        body = body_of(self.scope)
        if body is None or not body.is_document:
            return await super().json()
        if body.error is not None:
            raise body.error
        return body.document if self.validated is None else self.validated


def reading(handler: Handler, validator: Validator | None = None) -> Handler:
    """Return a route's handler that does not parse JSON again.

    A validator returns the object that the route takes for a document. It validates large documents
    in a thread; FastAPI then accepts the object as it is.
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
    """Return whether a document is so large that a thread should validate it."""
    return body.is_document and (body.values > _MANY_VALUES or len(body.raw) > SMALL_BODY)


def refusal(error: ValidationError) -> RequestValidationError:
    """Return FastAPI's error for pydantic's, without the input."""
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
