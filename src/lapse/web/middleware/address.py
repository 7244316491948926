"""Middleware that finds out from which address a request comes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.auth.addresses import Network, client_address, coming_from

_FORWARDED: Final = b"x-forwarded-for"

_log = logging.getLogger(__name__)


class ClientAddressMiddleware:
    """Sets the client's address for a request's work: the peer's, or the one that a proxy names.

    The scope must hold the real peer. A server that replaces it (uvicorn with `proxy_headers`)
    makes it impossible to recognise a proxy.
    """

    def __init__(self, app: ASGIApp, *, proxies: Sequence[Network] = (), counted: bool) -> None:
        self._app = app
        self._proxies = tuple(proxies)
        self._to_tell = counted and not proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its client's address in `coming_from`."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        forwarded = [
            value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED
        ]
        if forwarded and self._to_tell:
            self._to_tell = False
            _log.warning(
                "requests come with X-Forwarded-For, and no proxy is trusted: all that come "
                "through one count as one address; name it in LAPSE_AUTH_PROXIES"
            )
        peer = scope.get("client")
        with coming_from(client_address(peer[0] if peer else None, forwarded, self._proxies)):
            await self._app(scope, receive, send)
