"""Error pages: the answers of the operators' pages to errors."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

from lapse.core.errors import (
    InvalidValueError,
    LapseError,
    NoSuchSessionError,
    StoreUnavailableError,
    WrongStatusError,
)
from lapse.dashboard.rendering import Pages


class PageRoute(APIRoute):
    """A route that answers errors with a page, except for the 404 to those without access."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, wrapped so that it answers errors with a page."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except (LapseError, TimeoutError, RequestValidationError, HTTPException) as error:
                status, message = _status_and_message(error)
                if not message:
                    raise
                pages: Pages = request.app.state.lapse_operators_pages
                headers = getattr(error, "headers", None)
                answer = pages.page(request, "refused.html", status=status, message=message)
                answer.headers.update(headers or {})
                return answer

        return handled


def _status_and_message(error: Exception) -> tuple[int, str]:  # noqa: PLR0911 - one for each
    """Return the status and the message of an error page; an empty message for no page."""
    match error:
        case NoSuchSessionError():
            return 404, "There is no such session (any more)."
        case WrongStatusError():
            return 409, f"The session's status does not allow this: {error}."
        case InvalidValueError():
            return 400, f"The request is not valid: {error}."
        case StoreUnavailableError() | TimeoutError():
            return 503, "The session store does not answer; try again in a moment."
        case RequestValidationError():
            fault = error.errors()[0]
            return 400, f"The request is not valid: {fault['loc'][-1]}: {fault['msg']}."
        case HTTPException(status_code=403 | 429):
            return error.status_code, f"{str(error.detail).capitalize()}."
        case _:
            return 0, ""
