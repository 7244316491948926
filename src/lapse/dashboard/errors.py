"""What a page says when something cannot be done."""

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
    """A route whose errors are pages, too. A 404 of whoever is not let in stays what it is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except (LapseError, TimeoutError, RequestValidationError, HTTPException) as error:
                status, told = _told(error)
                if not told:
                    raise
                pages: Pages = request.app.state.lapse_operators_pages
                headers = getattr(error, "headers", None)
                answer = pages.page(request, "refused.html", status=status, told=told)
                answer.headers.update(headers or {})
                return answer

        return handled


def _told(error: Exception) -> tuple[int, str]:  # noqa: PLR0911 - one for each
    """Return the status and the sentence; none for what is not a page's to answer."""
    match error:
        case NoSuchSessionError():
            return 404, "There is no such session, or not any more."
        case WrongStatusError():
            return 409, f"The session's status does not allow this: {error}."
        case InvalidValueError():
            return 400, f"This cannot be asked for: {error}."
        case StoreUnavailableError() | TimeoutError():
            return 503, "The session store does not answer; try again in a moment."
        case RequestValidationError():
            fault = error.errors()[0]
            return 400, f"This cannot be asked for: {fault['loc'][-1]}: {fault['msg']}."
        case HTTPException(status_code=403 | 429):
            return error.status_code, f"{str(error.detail).capitalize()}."
        case _:
            return 0, ""
