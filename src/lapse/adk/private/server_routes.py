"""The routes and the middleware of ADK's server."""

# ruff: noqa: SLF001 - this module exists to use private names

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeGuard

from lapse.adk.private.versions import server_module, server_module_name
from lapse.adk.private.wire import is_server_loaded
from lapse.core.contexts import Having

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.routing import APIRoute
    from google.adk.cli.api_server import ApiServer
    from google.adk.sessions.session import Session


def is_endpoint_of_server(route: object, name: str) -> TypeGuard[APIRoute]:
    """Return whether a route has the endpoint of this name of ADK's server."""
    endpoint = getattr(route, "endpoint", None)
    return (
        getattr(endpoint, "__name__", "") == name
        and getattr(endpoint, "__module__", "") == server_module_name()
        and hasattr(route, "dependant")
    )


def is_middleware_of_server(cls: object) -> bool:
    """Return whether a class is middleware of ADK's server that leaves plain requests alone.

    One checks Host and Origin; see `host_check`. The other one, which there is since 2.0, changes
    paths that name no app.
    """
    if not is_server_loaded():
        return False
    server = server_module()
    return cls is server._OriginCheckMiddleware or cls is getattr(
        server, "_DefaultAppRewriteMiddleware", None
    )


def host_check(app: FastAPI) -> Callable[[bytes], bool]:
    """Return what says whether ADK's server refuses a `Host`, for an application that it made.

    ADK's server checks the `Host` since 2.7, and in 1.39.1.
    """
    server = server_module()
    if not hasattr(server, "_is_dns_rebinding_request"):
        return lambda _: False
    check: object = server._OriginCheckMiddleware
    options: Mapping[str, Any] = next(
        (one.kwargs for one in app.user_middleware if one.cls is check), {}
    )
    allowed = server._get_allowed_request_hosts(options.get("allowed_origins", []))

    @lru_cache(maxsize=256)
    def is_refused(host: bytes) -> bool:
        scope = {"headers": [(b"host", host)]}
        return bool(server._is_dns_rebinding_request(scope, options.get("bind_host"), allowed))

    return is_refused


def origin_check(app: FastAPI) -> Callable[[Mapping[str, Any]], bool]:
    """Return what says whether ADK's server refuses the `Origin` of a request.

    It is for an application that ADK's server made, and for requests that have one. It is asked
    only with the versions that were compared; see `is_compared`.
    """
    server = server_module()
    check: object = getattr(server, "_OriginCheckMiddleware", None)
    options: Mapping[str, Any] | None = next(
        (one.kwargs for one in app.user_middleware if one.cls is check), None
    )
    if options is None:
        return lambda _: False

    def is_refused(scope: Mapping[str, Any]) -> bool:
        return not server._is_request_origin_allowed(
            server._get_scope_header(scope, b"origin") or "",
            scope,
            options["allowed_origins"],
            options["allowed_origin_regex"],
            options["has_configured_allowed_origins"],
            options["bind_host"],
        )

    return is_refused


# The options of a request that creates a session, before 2.10.

_options: ContextVar[Mapping[str, Any] | None] = ContextVar("lapse_options", default=None)


def passes_options() -> bool:
    """Return whether ADK's route passes the options of a request to the session service.

    It does since 2.10. Older ones ignore the field.
    """
    return "options" in server_module().CreateSessionRequest.model_fields


def pass_options(server: ApiServer) -> None:
    """Have a server pass the options of the request in hand, see `with_options`.

    Only for servers that do not do so by themselves.
    """
    service = server.session_service
    create = service.create_session

    async def create_session(**asked: Any) -> Session:
        return await create(**{**(_options.get() or {}), **asked})

    service.create_session = create_session  # type: ignore[method-assign]


def with_options(options: Mapping[str, Any]) -> Having[Mapping[str, Any] | None]:
    """Create sessions inside the block with these options."""
    return Having(_options, options)
