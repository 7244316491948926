"""Tokens, good and forged, of an issuer that the tests own."""

from __future__ import annotations

import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER: Final = "https://issuer.test/"
AUDIENCE: Final = "lapse-test"
SCRAPE: Final = "scrape-" + "s" * 24
ADMIN: Final = "admin-" + "a" * 24


class Issuer:
    """Signs tokens with a key of its own."""

    def __init__(self, algorithm: str = "ES256", kid: str | None = None) -> None:
        self.algorithm = algorithm
        self.kid = kid
        if algorithm.startswith("ES"):
            self.private: Any = ec.generate_private_key(ec.SECP256R1())
        else:
            self.private = rsa.generate_private_key(65537, 2048)

    @property
    def public_pem(self) -> str:
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def jwk(self) -> dict[str, Any]:
        kind = jwt.get_algorithm_by_name(self.algorithm)
        return kind.to_jwk(self.private.public_key(), as_dict=True) | {"kid": self.kid}

    def token(self, user: Any = "ann", *, without: str = "", **claims: Any) -> str:
        """Return a token that is good unless the claims say otherwise."""
        said = {"sub": user, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600} | claims
        said.pop(without, None)
        headers = {"kid": self.kid} if self.kid else None
        return jwt.encode(said, self.private, self.algorithm, headers)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
