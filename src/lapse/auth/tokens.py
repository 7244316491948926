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
        InvalidValueError: PyJWT is not installed, or the key is none for the algorithms.
    """

    def __init__(self, options: JwtOptions, keys: Keys | None = None) -> None:
        if find_spec("jwt") is None or find_spec("cryptography") is None:
            raise InvalidValueError("LAPSE_AUTH", "jwt needs PyJWT: pip install 'lapse[jwt]'")
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
                f"the token's {self._options.user_claim!r} is no user id", _INVALID
            )
        return principal

    def _token(self, connection: HTTPConnection) -> str:
        given = connection.headers.getlist("authorization")
        if len(given) > 1:
            raise NotAuthenticatedError("two Authorization headers", _INVALID)
        if given:
            scheme, _, token = given[0].partition(" ")
            if scheme.lower() != "bearer":
                raise NotAuthenticatedError("a bearer token is needed", _CHALLENGE)
            token = token.strip()
        else:
            token = connection.cookies.get(self._options.cookie, "") if self._options.cookie else ""
        if not token:
            raise NotAuthenticatedError("a token is needed", _CHALLENGE)
        if len(token) > _LONGEST:
            raise NotAuthenticatedError("the token is too long", _INVALID)
        return token

    async def _verified(self, token: str) -> Mapping[str, Any]:
        """Return what a token claims, verified."""
        import jwt

        options = self._options
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in options.algorithms:
                raise jwt.InvalidAlgorithmError("its algorithm is not accepted")
            key = await self._keys.find(kid)
            if key is None:
                raise jwt.InvalidKeyError("its key is not known")
            if not key.fits(algorithm):
                raise jwt.InvalidAlgorithmError("its algorithm is not that of its key")
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=list(options.audiences),
                issuer=options.issuer,
                leeway=options.leeway,
                options={"require": ["exp", "iss", "aud", options.user_claim]},
            )
        except jwt.ExpiredSignatureError as error:
            raise NotAuthenticatedError("the token has expired", _INVALID) from error
        except KeysUnavailableError as error:
            raise NotAuthenticatedError("tokens cannot be verified now", _INVALID) from error
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            _log.info("a token was refused: %s", type(error).__name__)
            raise NotAuthenticatedError("the token is not valid", _INVALID) from error
        return claims

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
