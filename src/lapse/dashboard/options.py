"""The options of the operators' pages: who may use them, and on which port."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

from lapse.core.arguments import check_fields
from lapse.core.errors import InvalidValueError

SHORTEST_TOKEN: Final = 24
"""The least number of characters of a token; that many random ones cannot be guessed."""

LOGGED_IN: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """Who may use `/lapse/`, and on which port.

    Attributes:
        token: the token for the log-in and the API. With None only authenticated principals
            with the operator's role have access.
        port: the only port that serves the pages; None means every port of the application.
        logged_in: how long a log-in is valid.
        store: the store's address, which the pages show; it must not contain a password.
    """

    token: SecretStr | None = None
    port: int | None = None
    logged_in: timedelta = LOGGED_IN
    store: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.token is not None:
            check_token(self.token)


def check_token(token: SecretStr) -> SecretStr:
    """Return the token if it is long enough not to be guessed.

    Raises:
        InvalidValueError: it is too short, or an HTTP header cannot carry it.
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
