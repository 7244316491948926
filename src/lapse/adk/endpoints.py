"""Functions around names of FastAPI that a new version may move or remove.

`tests/adk/test_adk_private.py` says what each name is for. Importing this module does not import
FastAPI.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.routing import APIRoute
    from starlette.responses import Response
    from starlette.types import ASGIApp

SESSIONS_PATH: Final = "/apps/{app_name}/users/{user_id}/sessions"
"""The path at which ADK's server creates and lists sessions."""

Handler = Callable[["Request"], Coroutine[Any, Any, "Response"]]
"""What FastAPI calls for a request to a route."""

Endpoint = Callable[..., Coroutine[Any, Any, Any]]
"""A route's endpoint, if it is a coroutine function."""


def paths_of(app: FastAPI) -> set[str]:
    """Return the path of each route of an application, also of routers that it includes."""
    from fastapi import routing

    # A FastAPI without this function copies the routes of an included router into the application.
    listed = getattr(routing, "iter_route_contexts", iter)
    return {str(getattr(route, "path", "")) for route in listed(app.routes)}


def answer_of(route: APIRoute, wrapped: Callable[[Handler], Handler]) -> ASGIApp:
    """Return the ASGI application of a route, with the route's handler wrapped.

    A route with a bound of its own for bodies is returned unchanged, because FastAPI alone knows
    how to put that bound around the handler.
    """
    from fastapi.routing import request_response

    if getattr(route, "max_body_size", None) is not None:
        return route.app
    return request_response(wrapped(route.get_route_handler()))


def validator_of(route: APIRoute) -> Callable[[Any], Any] | None:
    """Return the function that makes a route's body parameter of a JSON document.

    None where the endpoint takes no body, or several parameters from one body.
    """
    from fastapi import params
    from pydantic import TypeAdapter

    field = route.body_field
    # Of a body with several parts FastAPI makes a field of its own.
    if field is None or not any(field is one for one in route.dependant.body_params):
        return None
    annotation = field.field_info.annotation
    if annotation is None or isinstance(field.field_info, params.Form):
        return None
    made: list[TypeAdapter[Any]] = []

    def validate(document: Any) -> Any:
        if not made:
            made.append(TypeAdapter(annotation))
        return made[0].validate_python(document, from_attributes=True)

    return validate


def around_endpoint(route: APIRoute, wrap: Callable[[Endpoint], Endpoint]) -> None:
    """Replace a route's endpoint, a coroutine function, by what `wrap` makes of it.

    FastAPI calls an endpoint with its parameters and its body, validated, by their names.
    """
    call = route.dependant.call
    assert call is not None, "a route has an endpoint"
    route.dependant.call = wraps(call)(wrap(call))


def before_endpoint(route: APIRoute, callback: Callable[[], None]) -> None:
    """Call `callback` directly before a route's endpoint: after parameters and body are validated.

    It runs where the endpoint runs, which is a thread unless the endpoint is a coroutine function.
    FastAPI has no hook for this. Instrumentation libraries wrap the same attribute, and FastAPI
    allows for that.
    """
    call = route.dependant.call
    assert call is not None, "a route has an endpoint"

    @wraps(call)
    def endpoint(*args: Any, **kwargs: Any) -> Any:
        callback()
        return call(*args, **kwargs)

    route.dependant.call = endpoint
