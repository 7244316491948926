"""Tokens that stand in settings: how long one must be, and how one is compared."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from pydantic import SecretStr

from lapse.core.errors import InvalidValueError

SHORTEST_TOKEN: Final = 24
"""The least number of characters of a token; that many random ones cannot be guessed."""


def check_token(variable: str, token: SecretStr) -> SecretStr:
    """Return the token of a setting if it is long enough not to be guessed.

    Raises:
        InvalidValueError: it is too short, or an HTTP header cannot carry it.
    """
    text = token.get_secret_value()
    if len(text) < SHORTEST_TOKEN:
        reason = (
            f"must have at least {SHORTEST_TOKEN} characters, not {len(text)}; "
            "`openssl rand -hex 24` makes one"
        )
        raise InvalidValueError(variable, reason)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidValueError(variable, "must be printable ASCII without spaces")
    return token


def is_same_token(given: str, token: SecretStr) -> bool:
    """Return whether `given` is the token; the time it takes tells nothing of the token."""
    return hmac.compare_digest(digest_of(given), digest_of(token.get_secret_value()))


def digest_of(text: str) -> bytes:
    """Return a text's SHA-256, so that the time of a comparison does not depend on its length."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
