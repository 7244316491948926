"""What an authenticator is, and what it may call a principal."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import SecretStr
from starlette.requests import HTTPConnection

from lapse.auth.options import RoleNames
from lapse.auth.principals import LONGEST_NAME, Principal, Role
from lapse.core.arguments import check_fields
from lapse.core.keys import dots_in
from lapse.core.tokens import is_same_token


class Authenticator(Protocol):
    """Says who asks."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return who asks, over HTTP or for a WebSocket that is not accepted yet.

        Raises:
            NotAuthenticatedError: nobody known.
        """
        ...


@dataclass(frozen=True, slots=True)
class Authentication:
    """How an application knows its callers, and what it lets them call.

    Attributes:
        authenticator: says who asks.
        open_paths: paths that anybody may call, beside `/livez`, `/readyz`, `/health` and
            `/lapse/client.js`.
        shared_paths: paths of the application's own that every principal may call; they look
            at `current_principal` themselves. All others without a user are the operators'.
            In both a path ending in `/` stands for all below it.
        origins: the origins whose pages may send a browser's cookie, beside the server's own.
        metrics_tokens: with one of these as its bearer token, a request may read `/metrics`, and
            nothing else.
    """

    authenticator: Authenticator
    open_paths: Collection[str] = ()
    shared_paths: Collection[str] = ()
    origins: Collection[str] = ()
    metrics_tokens: Collection[SecretStr] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_fields(self)

    def may_scrape(self, path: str, connection: HTTPConnection) -> bool:
        """Return whether a request reads `/metrics` with one of the tokens for that."""
        return may_scrape(path, connection, self.metrics_tokens)


def may_scrape(path: str, connection: HTTPConnection, tokens: Iterable[SecretStr]) -> bool:
    """Return whether a request reads `/metrics` with one of these tokens."""
    if path != "/metrics" or connection.scope["type"] != "http":
        return False
    given = connection.headers.getlist("authorization")
    if len(given) != 1 or connection.scope["method"] not in {"GET", "HEAD"}:
        return False
    scheme, _, token = given[0].partition(" ")
    # Each is compared, so that the time does not tell which of them a wrong one is like.
    same = [is_same_token(token.strip(), one) for one in tokens]
    return scheme.lower() == "bearer" and any(same)


def named(name: object, role: Role = Role.USER) -> Principal | None:
    """Return a principal of this name; None where no user could have it as their id.

    A name may be a URL, as a token's subject often is, but not have a part `.` or `..`.
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return None
    if dots_in(name) or name != name.strip() or not name.isprintable():
        return None
    return Principal(name, role)


def highest_role(given: Iterable[str], names: RoleNames) -> Role:
    """Return the highest of the given roles; USER if none of them is known."""
    roles = frozenset(given)
    if names.operator in roles:
        return Role.OPERATOR
    return Role.SERVICE if names.service in roles else Role.USER
