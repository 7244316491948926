"""A user whom a proxy has authenticated, named by a header that only the proxy may set."""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection

from lapse.auth.addresses import is_among, parse_address
from lapse.auth.authenticator import highest_role, named
from lapse.auth.options import HeaderOptions, NotAuthenticatedError
from lapse.auth.principals import Principal
from lapse.core.arguments import check

_CHALLENGE: Final = 'Proxy realm="lapse"'


class HeaderAuthenticator:
    """Believes the header of a configured proxy, and nobody else's."""

    def __init__(self, options: HeaderOptions) -> None:
        check(options=(options, HeaderOptions))
        self._options = options

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return whom the header names."""
        options = self._options
        peer = parse_address(connection.client.host if connection.client else "")
        if peer is None or not is_among(peer, options.proxies):
            raise NotAuthenticatedError(
                "only a proxy of LAPSE_AUTH_PROXIES may name the user; ask through it", _CHALLENGE
            )
        name = _only(connection, options.header)
        roles = _only(connection, options.role_header) if options.role_header else ""
        given = (role.strip() for role in roles.split(","))
        principal = named(name, highest_role(given, options.roles))
        if principal is None:
            told = f"the header {options.header} " + ("is no user id" if name else "names nobody")
            reason = f"{told}; the proxy must set it to the user's id"
            raise NotAuthenticatedError(reason, _CHALLENGE)
        return principal


def _only(connection: HTTPConnection, header: str) -> str:
    """Return the value of a header; of two, one may be the caller's own."""
    values = connection.headers.getlist(header)
    if len(values) > 1:
        raise NotAuthenticatedError(
            f"the header {header} came twice; the proxy must remove what a caller sends", _CHALLENGE
        )
    try:
        return values[0].encode("latin-1").decode() if values else ""
    except UnicodeDecodeError:
        return ""
