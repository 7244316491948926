"""How callers are authenticated: the plain choices, as settings make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

from lapse.auth.addresses import Network
from lapse.core.arguments import check_fields
from lapse.core.errors import LapseError
from lapse.core.tokens import check_token


class AuthMode(StrEnum):
    """Who says who somebody is."""

    NONE = "none"
    JWT = "jwt"
    HEADER = "header"


class NotAuthenticatedError(LapseError):
    """Nobody known asks.

    Attributes:
        challenge: the value of `WWW-Authenticate`: what would be accepted.
    """

    def __init__(self, reason: str, challenge: str) -> None:
        super().__init__(reason)
        self.challenge = challenge


SYMMETRIC: Final = frozenset({"HS256", "HS384", "HS512"})
"""Algorithms whose key both signs and verifies."""

ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Algorithms that verify with a public key."""


@dataclass(frozen=True, slots=True)
class RoleNames:
    """The names by which a token, or a proxy, gives the roles above a user's."""

    service: str = "service"
    operator: str = "operator"


@dataclass(frozen=True, slots=True)
class JwtOptions:
    """Which tokens are accepted, and what they say.

    Attributes:
        issuer: the `iss` that a token must have.
        audiences: one of them must be in its `aud`.
        algorithms: those that are accepted, and no others, whatever a token says.
        key: the key that verifies: a secret, or a public key as PEM.
        jwks_url: where the keys are published, instead of one key.
        user_claim: which claim names the user.
        role_claim: which claim holds the roles, a name or a list; `a.b` reaches into an object.
        roles: what these are called.
        leeway: by how much the clocks of issuer and server may differ.
        cookie: a cookie that a token may come in, for browsers; none where it is empty.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...] = ("RS256",)
    key: str | None = field(default=None, repr=False)
    jwks_url: str | None = field(default=None, repr=False)
    user_claim: str = "sub"
    role_claim: str = ""
    roles: RoleNames = RoleNames()
    leeway: timedelta = timedelta(seconds=30)
    cookie: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class HeaderOptions:
    """Which header names the user, and which proxies may set it.

    Attributes:
        header: the header's name.
        proxies: the addresses of the proxies that set it.
        role_header: a header with the roles, comma-separated; none where it is empty.
        roles: what these are called.
    """

    header: str
    proxies: tuple[Network, ...]
    role_header: str = ""
    roles: RoleNames = RoleNames()

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class AuthOptions:
    """How callers are authenticated.

    Attributes:
        by: by a token or a header; None: not at all.
        metrics_open: whether `/metrics` is answered to anybody.
        metrics_tokens: with one of these as its bearer token, a request may read `/metrics`.
    """

    by: JwtOptions | HeaderOptions | None = None
    metrics_open: bool = False
    metrics_tokens: tuple[SecretStr, ...] = ()


def _checked(token: SecretStr) -> SecretStr:
    return check_token("LAPSE_METRICS_TOKEN", token)


MetricsToken = Annotated[SecretStr, AfterValidator(_checked)]
