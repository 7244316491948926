"""The settings of who may call: read with all others, checked together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from lapse.auth.addresses import Network, parse_networks
from lapse.auth.app_state import AppStateBy
from lapse.auth.options import (
    ASYMMETRIC,
    SYMMETRIC,
    AuthMode,
    AuthOptions,
    HeaderOptions,
    JwtOptions,
    MetricsToken,
    RoleNames,
)
from lapse.core.errors import InvalidValueError
from lapse.core.setting_types import SecondsOrNone, SliceSettings

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The form of the names of headers and cookies (RFC 9110)."""

_LONGEST_LEEWAY: Final = timedelta(minutes=5)
_DEFAULTS: Final = JwtOptions(issuer="", audiences=())


class AuthSettings(SliceSettings):
    """The settings of authentication; `docs/settings.md` describes each."""

    auth: AuthMode = Field(default=AuthMode.NONE, validation_alias="LAPSE_AUTH")
    jwt_jwks_url: str | None = Field(
        default=None, validation_alias="LAPSE_JWT_JWKS_URL", repr=False
    )
    jwt_key: SecretStr | None = Field(default=None, validation_alias="LAPSE_JWT_KEY", repr=False)
    jwt_algorithms: str = Field(
        default=",".join(_DEFAULTS.algorithms), validation_alias="LAPSE_JWT_ALGORITHMS"
    )
    jwt_audience: str = Field(default="", validation_alias="LAPSE_JWT_AUDIENCE")
    jwt_issuer: str = Field(default="", validation_alias="LAPSE_JWT_ISSUER")
    jwt_user_claim: str = Field(
        default=_DEFAULTS.user_claim, min_length=1, validation_alias="LAPSE_JWT_USER_CLAIM"
    )
    jwt_role_claim: str = Field(
        default=_DEFAULTS.role_claim, validation_alias="LAPSE_JWT_ROLE_CLAIM"
    )
    jwt_leeway: SecondsOrNone = Field(
        default=_DEFAULTS.leeway, validation_alias="LAPSE_JWT_LEEWAY_SECONDS"
    )
    jwt_cookie: str = Field(default=_DEFAULTS.cookie, validation_alias="LAPSE_JWT_COOKIE")
    auth_header: str = Field(default="X-Forwarded-User", validation_alias="LAPSE_AUTH_HEADER")
    auth_role_header: str = Field(default="", validation_alias="LAPSE_AUTH_ROLE_HEADER")
    auth_proxies: str = Field(default="", validation_alias="LAPSE_AUTH_PROXIES")
    service_role: str = Field(
        default=RoleNames().service, min_length=1, validation_alias="LAPSE_SERVICE_ROLE"
    )
    operator_role: str = Field(
        default=RoleNames().operator, min_length=1, validation_alias="LAPSE_OPERATOR_ROLE"
    )
    app_state_by: AppStateBy = Field(
        default=AppStateBy.ANYONE, validation_alias="LAPSE_APP_STATE_BY"
    )
    metrics_open: bool = Field(default=False, validation_alias="LAPSE_METRICS_OPEN")
    metrics_token: MetricsToken | None = Field(
        default=None, repr=False, validation_alias="LAPSE_METRICS_TOKEN"
    )

    @property
    def authentication(self) -> AuthOptions:
        """Return how callers are authenticated; of settings without `problems` only."""
        roles = RoleNames(self.service_role, self.operator_role)
        match self.auth:
            case AuthMode.NONE:
                return AuthOptions()
            case AuthMode.JWT:
                by: JwtOptions | HeaderOptions = JwtOptions(
                    issuer=self.jwt_issuer,
                    audiences=_listed(self.jwt_audience),
                    algorithms=_listed(self.jwt_algorithms),
                    key=self._key,
                    jwks_url=self.jwt_jwks_url,
                    user_claim=self.jwt_user_claim,
                    role_claim=self.jwt_role_claim,
                    roles=roles,
                    leeway=self.jwt_leeway,
                    cookie=self.jwt_cookie,
                )
            case AuthMode.HEADER:
                by = HeaderOptions(self.auth_header, self.proxies, self.auth_role_header, roles)
        tokens = () if self.metrics_token is None else (self.metrics_token,)
        return AuthOptions(by, metrics_open=self.metrics_open, metrics_tokens=tokens)

    @property
    def sweepers_metrics(self) -> tuple[SecretStr, ...] | None:
        """Return the tokens for `/metrics` of a process that only sweeps; None: it asks for none.

        Such a process authenticates nobody. So a token that is set counts without LAPSE_AUTH, too.
        """
        if self.metrics_token is not None and not self.metrics_open:
            return (self.metrics_token,)
        return None if self.metrics_open or self.auth is AuthMode.NONE else ()

    def problems(self) -> list[str]:
        """Return what is wrong with these settings together."""
        problems = [*super().problems(), *self._proxy_problems()]
        if self.service_role == self.operator_role:
            problems.append("LAPSE_OPERATOR_ROLE: must not be the same as LAPSE_SERVICE_ROLE")
        match self.auth:
            case AuthMode.NONE:
                return problems
            case AuthMode.JWT:
                return [*problems, *self._token_problems()]
            case AuthMode.HEADER:
                return [*problems, *self._header_problems()]

    @property
    def for_lapse_alone(self) -> str | None:
        """Return the first of these variables whose value ADK's own server cannot honour."""
        if self.auth is not AuthMode.NONE:
            return "LAPSE_AUTH"
        return None if self.app_state_by is AppStateBy.ANYONE else "LAPSE_APP_STATE_BY"

    @property
    def _key(self) -> str | None:
        """Return the key, in whose place a variable may have backslash-n for each end of a line."""
        if self.jwt_key is None:
            return None
        return self.jwt_key.get_secret_value().replace("\\n", "\n")

    @property
    def proxies(self) -> tuple[Network, ...]:
        """Return the networks of the proxies whose headers are believed."""
        return parse_networks(_listed(self.auth_proxies), field="LAPSE_AUTH_PROXIES")

    def _token_problems(self) -> Iterator[str]:
        for name, value, what in (
            ("ISSUER", self.jwt_issuer, "the `iss` of the issuer's tokens"),
            ("AUDIENCE", self.jwt_audience, "the `aud` of tokens for this server"),
        ):
            if not value:
                yield f"LAPSE_JWT_{name}: LAPSE_AUTH=jwt needs it: {what}"
        if self.jwt_cookie and not _TOKEN.fullmatch(self.jwt_cookie):
            yield f"LAPSE_JWT_COOKIE={self.jwt_cookie!r:.60}: must be the name of a cookie"
        if self.jwt_leeway > _LONGEST_LEEWAY:
            yield "LAPSE_JWT_LEEWAY_SECONDS: must be at most 300; clocks do not differ by more"
        algorithms = _listed(self.jwt_algorithms)
        known = SYMMETRIC | ASYMMETRIC
        if not algorithms or not known.issuperset(algorithms):
            names = ", ".join(sorted(known))
            yield f"LAPSE_JWT_ALGORITHMS={self.jwt_algorithms!r:.60}: must be some of {names}"
            return
        symmetric = SYMMETRIC.intersection(algorithms)
        if symmetric and ASYMMETRIC.intersection(algorithms):
            yield (
                f"LAPSE_JWT_ALGORITHMS={self.jwt_algorithms!r:.60}: must not mix HS… with others: "
                "a public key is no secret"
            )
            return
        if (self._key is None) == (self.jwt_jwks_url is None):
            yield "LAPSE_AUTH=jwt: needs either LAPSE_JWT_JWKS_URL or LAPSE_JWT_KEY"
        elif self._key is not None:
            yield from _key_problems(self._key, algorithms)
        elif self.jwt_jwks_url is not None:
            yield from _url_problems(self.jwt_jwks_url, is_symmetric=bool(symmetric))

    def _header_problems(self) -> Iterator[str]:
        for name, header in (
            ("LAPSE_AUTH_HEADER", self.auth_header),
            ("LAPSE_AUTH_ROLE_HEADER", self.auth_role_header or "unset"),
        ):
            if not _TOKEN.fullmatch(header):
                yield f"{name}={header!r:.60}: must be the name of a header"
        if self.auth_header.lower() == self.auth_role_header.lower():
            yield "LAPSE_AUTH_ROLE_HEADER: must not be the same as LAPSE_AUTH_HEADER"
        if not _listed(self.auth_proxies):
            yield (
                "LAPSE_AUTH_PROXIES: LAPSE_AUTH=header needs it: the addresses of the proxies "
                f"that set {self.auth_header}, such as 127.0.0.1 or 10.0.0.0/8"
            )

    def _proxy_problems(self) -> Iterator[str]:
        given = f"LAPSE_AUTH_PROXIES={self.auth_proxies!r:.60}"
        try:
            proxies = self.proxies
        except InvalidValueError as error:
            yield f"{given}: {error.reason}"
            return
        if any(not network.prefixlen for network in proxies):
            yield f"{given}: must not be all addresses: anybody could name any user"


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def _key_problems(key: str, algorithms: tuple[str, ...]) -> Iterator[str]:
    """Say what is wrong with a key, without showing it."""
    is_pem = key.lstrip().startswith("-----BEGIN")
    if algorithms[0] in SYMMETRIC:
        if is_pem:
            yield "LAPSE_JWT_KEY: is no secret for HS…; for a public key set RS256 or ES256"
            return
        needed = max(int(name.removeprefix("HS")) for name in algorithms) // 8
        if len(key.encode()) < needed:
            yield f"LAPSE_JWT_KEY: must be at least {needed} bytes for {', '.join(algorithms)}"
    elif not is_pem:
        yield "LAPSE_JWT_KEY: must be a public key as PEM (-----BEGIN PUBLIC KEY-----)"
    elif "PRIVATE KEY" in key:
        yield "LAPSE_JWT_KEY: is a private key; set the public one, which verifies just as well"


def _url_problems(url: str, *, is_symmetric: bool) -> Iterator[str]:
    if is_symmetric:
        yield "LAPSE_JWT_ALGORITHMS: HS… needs LAPSE_JWT_KEY; a published key is no secret"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if not url.startswith("https://") and not (is_here and url.startswith("http://")):
        # It is not shown, because it may hold a password.
        yield "LAPSE_JWT_JWKS_URL: must be https://…, or http:// on this machine"
