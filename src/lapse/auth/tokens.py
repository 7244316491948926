"""Users who bring a signed token (JWT)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

from starlette.requests import HTTPConnection

from lapse.auth.authenticator import highest_role, named
from lapse.auth.keys import Keys, KeysUnavailableError, OneKey, PublishedKeys
from lapse.auth.options import JwtOptions, NotAuthenticatedError
from lapse.auth.principals import Principal
from lapse.core.arguments import check
from lapse.core.errors import InvalidValueError
from lapse.core.log_rate import LogRateLimit

_CHALLENGE: Final = 'Bearer realm="lapse"'
_INVALID: Final = f'{_CHALLENGE}, error="invalid_token"'
_LONGEST: Final = 16 * 1024
_SEND: Final = "a token is needed; send it as Authorization: Bearer TOKEN"

_log = logging.getLogger(__name__)
_log.addFilter(LogRateLimit())


class TokenAuthenticator:
    """Accepts tokens that an issuer has signed for this audience.

    A token comes in `Authorization: Bearer`, or in a cookie where one is named. Never in a
    URL: those are logged.

    Args:
        options: which tokens are accepted.
        keys: where the keys are, instead of the options' own.

    Raises:
        InvalidValueError: joserfc is not installed, or the key does not fit the algorithms.
    """

    def __init__(self, options: JwtOptions, keys: Keys | None = None) -> None:
        if find_spec("joserfc") is None:
            raise InvalidValueError("LAPSE_AUTH", "jwt needs joserfc: pip install 'lapse[jwt]'")
        check(options=(options, JwtOptions))
        self._options = options
        if keys is None and options.jwks_url:
            keys = PublishedKeys(options.jwks_url)
        elif keys is None:
            keys = OneKey(options.key or "", options.algorithms)
        self._keys = keys

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return whom the token names."""
        token = self._token(connection)
        claims = await self._verified(token)
        principal = named(
            claims.get(self._options.user_claim),
            highest_role(self._roles(claims), self._options.roles),
        )
        if principal is None:
            raise NotAuthenticatedError(
                f"the token's {self._options.user_claim!r} must be a text that may be a user id",
                _INVALID,
            )
        return principal

    def _token(self, connection: HTTPConnection) -> str:
        given = connection.headers.getlist("authorization")
        if len(given) > 1:
            raise NotAuthenticatedError("two Authorization headers; send one", _INVALID)
        if given:
            scheme, _, token = given[0].partition(" ")
            if scheme.lower() != "bearer":
                raise NotAuthenticatedError(_SEND, _CHALLENGE)
            token = token.strip()
        else:
            token = connection.cookies.get(self._options.cookie, "") if self._options.cookie else ""
        if not token:
            raise NotAuthenticatedError(_SEND, _CHALLENGE)
        if len(token) > _LONGEST:
            raise NotAuthenticatedError(f"the token must be at most {_LONGEST} bytes", _INVALID)
        return token

    async def _verified(self, token: str) -> Mapping[str, Any]:
        """Return what a token claims, verified."""
        from joserfc.errors import ExpiredTokenError, JoseError
        from joserfc.jws import extract_compact
        from joserfc.jwt import decode

        from lapse.auth.signatures import Signatures, claims_of

        options = self._options
        signatures = Signatures(algorithms=options.algorithms, strict_check_header=False)
        try:
            header = extract_compact(token.encode(), registry=signatures).headers()
            # What a library would think of a header that is a list is not tried out.
            algorithm = header.get("alg") if isinstance(header, dict) else None
            if algorithm not in options.algorithms or "crit" in header:
                raise ValueError("its algorithm, or its critical header, is not accepted")
            key = await self._keys.find(header.get("kid"))
            if key is None:
                raise ValueError("its key is not known")
            if not key.fits(algorithm):
                raise ValueError("its algorithm is not that of its key")
            found = decode(token, key.key, [algorithm], signatures)
            claims_of(options).validate(found.claims)
        except ExpiredTokenError as error:
            raise NotAuthenticatedError(
                "the token has expired; send a new one", _INVALID
            ) from error
        except KeysUnavailableError as error:
            raise NotAuthenticatedError(
                "tokens cannot be verified now; try again in a moment", _INVALID
            ) from error
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            _log.info("a token was refused: %s", type(error).__name__)
            raise NotAuthenticatedError(
                "the token is not valid; send one that the issuer has made for this server",
                _INVALID,
            ) from error
        return found.claims

    def _roles(self, claims: Mapping[str, Any]) -> list[str]:
        """Return the roles that a token grants: of a name, several, or a list of names."""
        name = self._options.role_claim
        if not name:
            return []
        found: Any = claims.get(name)
        if found is None:
            found = claims
            for part in name.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, str):
            return found.replace(",", " ").split()
        return [role for role in found if isinstance(role, str)] if isinstance(found, list) else []
