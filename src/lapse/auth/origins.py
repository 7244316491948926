"""Which pages may have a browser send requests in its user's name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from starlette.requests import HTTPConnection

from lapse.core.errors import InvalidValueError

_PATTERN: Final = "regex:"
"""How ADK marks an origin that is a regular expression."""

_NOBODYS: Final = ("https://any.invalid", "http://any.invalid", "null")
"""Origins that no list has a reason to allow. Any page can make its own `null`, in a frame."""


def is_own_origin(origin: str, connection: HTTPConnection) -> bool:
    """Return whether a page of an origin is one of the server to which a request was sent.

    If the request is known to be encrypted, the page must be, too: whoever sits on the wire can
    write a page of the same name without encryption. If nobody says so, because a proxy decrypts
    and does not tell, both will do. A request without `Host`, or with two, has no own pages.
    """
    hosts = connection.headers.getlist("host")
    schemes = ("https",) if is_encrypted(connection) else ("http", "https")
    return len(hosts) == 1 and origin in {f"{scheme}://{hosts[0]}" for scheme in schemes}


def is_encrypted(connection: HTTPConnection) -> bool:
    """Return whether the client's connection is encrypted, by its URL or by a proxy's header.

    The header can be forged, but it only makes more demands on its sender.
    """
    forwarded = connection.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return connection.scope.get("scheme") in {"https", "wss"} or forwarded in {"https", "wss"}


def check_origins(origins: Iterable[str]) -> None:
    """Refuse origins that let the pages of every site read what an authenticated browser may read.

    ADK's server tells browsers to send cookies from every allowed origin.

    Raises:
        InvalidValueError: one is `*`, `null`, or a pattern that fits everything, or is no pattern.
    """
    for origin in origins:
        pattern = origin.removeprefix(_PATTERN) if origin.startswith(_PATTERN) else ""
        try:
            fits_all = pattern and any(re.fullmatch(pattern, one) for one in _NOBODYS)
        except re.error as error:
            raise InvalidValueError(
                "allow_origins", f"{origin!r} is no pattern: {error}"
            ) from error
        if fits_all or origin in {"*", "null"}:
            raise InvalidValueError(
                "allow_origins",
                f"{origin!r} lets every website read what a signed-in browser may read, because "
                "LAPSE_AUTH is on; name the origins of your own pages instead",
            )
