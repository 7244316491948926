"""How the operators' pages and their API are opened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

from lapse.core.errors import InvalidValueError

SHORTEST_TOKEN: Final = 24
"""Characters of a token: as many random ones cannot be guessed."""

LOGGED_IN: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """Who gets at `/lapse/`, and where.

    Attributes:
        token: what opens it; None: closed but to principals who are operators.
        port: it is served on connections to this port alone; None: wherever the rest is.
        logged_in: for how long a log-in holds.
        store: the store's address, for people; it must hold no password.
    """

    token: SecretStr | None = None
    port: int | None = None
    logged_in: timedelta = LOGGED_IN
    store: str = ""

    def __post_init__(self) -> None:
        if self.token is not None:
            check_token(self.token)


def check_token(token: SecretStr) -> SecretStr:
    """Return a token that cannot be guessed.

    Raises:
        InvalidValueError: it is too short, or an HTTP header could not carry it.
    """
    text = token.get_secret_value()
    if len(text) < SHORTEST_TOKEN:
        reason = (
            f"must have at least {SHORTEST_TOKEN} characters, not {len(text)}; "
            "`openssl rand -hex 24` makes one"
        )
        raise InvalidValueError("LAPSE_ADMIN_TOKEN", reason)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidValueError("LAPSE_ADMIN_TOKEN", "must be printable ASCII without spaces")
    return token


AdminToken = Annotated[SecretStr, AfterValidator(check_token)]


def without_password(url: str) -> str:
    """Return a store's URL without what might be secret: its password and its parameters."""
    scheme, slashes, rest = url.partition("://")
    if scheme.startswith("sqlite"):
        return url.partition("?")[0]
    user, at, place = rest.rpartition("@")
    name = re.split("[:/?]", user)[0]
    return f"{scheme}{slashes}{name}{at}{place.partition('?')[0]}"
