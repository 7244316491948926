"""Error pages: the answers of the operators' pages to errors, with the way back and help."""

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
    NotAsShownError,
    NotWithThisServiceError,
    StoreUnavailableError,
    WrongStatusError,
)
from lapse.dashboard.rendering import Pages


class PageRoute(APIRoute):
    """A route that answers errors with a page; a script without access gets the plain 404."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, wrapped so that it answers errors with a page."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except (LapseError, TimeoutError, RequestValidationError, HTTPException) as error:
                status, title, message = _told(error)
                if not status or (status == 404 and not _may_see(request)):  # noqa: PLR2004
                    raise
                pages: Pages = request.app.state.lapse_operators_pages
                answer = pages.page(
                    request, "refused.html", status=status, title=title, message=message
                )
                answer.headers.update(getattr(error, "headers", None) or {})
                return answer

        return handled


def _may_see(request: Request) -> bool:
    """Return whether a 404 may be a page: for an operator, or for a browser's own request."""
    if getattr(request.state, "operator", None) is not None:
        return True
    return "text/html" in request.headers.get("accept", "")


def _told(error: Exception) -> tuple[int, str, str]:  # noqa: PLR0911 - one for each
    """Return the status, the title and the message of an error page; status 0 for no page."""
    match error:
        case NoSuchSessionError():
            return 404, "No such session", "It never existed, or was purged or deleted."
        case WrongStatusError():
            return 409, "Not done", f"The session's status does not allow this: {error}."
        case NotAsShownError():
            return 409, "Not done", _sentence(error)
        case NotWithThisServiceError():
            return 501, "Not with this service", _sentence(error)
        case InvalidValueError():
            return 400, "Not done", f"The request is not valid: {error}."
        case StoreUnavailableError() | TimeoutError():
            what = "The session store does not answer; try again in a moment."
            return 503, "The store does not answer", what
        case RequestValidationError():
            fault = error.errors()[0]
            what = f"The request is not valid: {fault['loc'][-1]}: {fault['msg']}."
            return 400, "Not done", what
        case HTTPException(status_code=404):
            return 404, "Page not found", "There is no page at this address."
        case HTTPException(status_code=403 | 413 | 429):
            return error.status_code, "Not done", f"{str(error.detail).capitalize()}."
        case _:
            return 0, "", ""


def _sentence(error: Exception) -> str:
    told = str(error)
    return f"{told[:1].upper()}{told[1:]}."
