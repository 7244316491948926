"""What joserfc checks of a token: its signature, its header and its claims.

joserfc is imported with this module, so only who reads tokens imports it.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

from joserfc.errors import JoseError, SecurityWarning, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry, Key
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from lapse.auth.options import JwtOptions

_KINDS: Final = {"HS": "oct", "RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""Which kind of key an algorithm takes, by how its name begins."""


class Signatures(JWSRegistry):
    """The algorithms that a token may be signed with, and how long its parts may be.

    A token as a whole is bounded before it is read. Headers that are not known are passed over, as
    RFC 7515 says, unless the token calls them critical.
    """

    max_header_length = max_signature_length = 16 * 1024

    def get_alg(self, name: str) -> Any:
        """Return an algorithm that is allowed.

        joserfc warns of `EdDSA`, which newer RFCs call `Ed25519`, at each token; issuers use it.

        Raises:
            UnsupportedAlgorithmError: it is not allowed.
        """
        if name not in (self.allowed or ()) or name not in self.algorithms:
            raise UnsupportedAlgorithmError("it is not accepted")
        return self.algorithms[name]


def claims_of(options: JwtOptions) -> JWTClaimsRegistry:
    """Return what a token must claim: issuer, audience, a future end, and its user."""
    leeway: Any = options.leeway.total_seconds()  # less than a second is one, too
    wanted: dict[str, Any] = {
        options.user_claim: {"essential": True},
        "exp": {"essential": True},
        "iss": {"essential": True, "value": options.issuer},
        "aud": {"essential": True, "values": list(options.audiences)},
    }
    return JWTClaimsRegistry(leeway=leeway, **wanted)


def key_of(given: Any, algorithm: str | None = None) -> Key:
    """Return a key: of an algorithm, as PEM or a secret, or a JWK, which tells its own kind.

    Raises:
        ValueError: it is none, or not for the algorithm, or one that joserfc warns of: a public
            key as a secret, a key that is too short.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)
            if algorithm is None:
                return JWKRegistry.import_key(given)
            key = JWKRegistry.import_key(given, _KINDS[algorithm[:2]])
            JWSRegistry.algorithms[algorithm].check_key(key)
    except (JoseError, SecurityWarning, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(type(error).__name__) from None
    return key
