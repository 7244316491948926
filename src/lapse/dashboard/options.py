"""The options of the operators' pages: who may use them, and on which port."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

from lapse.core.arguments import check_fields
from lapse.core.tokens import check_token

LOGGED_IN: Final = timedelta(hours=12)

_own_key: list[bytes] = [secrets.token_bytes(32)]


def own_key() -> bytes:
    """Return the key with which this process signs forms if no token is set."""
    return _own_key[0]


def share_key(key: bytes) -> None:
    """Have this process accept the forms of others that have this key, as if it were its own."""
    _own_key[:] = [key]


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """Who may use `/lapse/`, and on which port.

    Attributes:
        token: the token for the log-in and the API. With None only authenticated principals
            with the operator's role have access.
        port: the only port that serves the pages; None means every port of the application.
        logged_in: how long a log-in is valid.
        store: the store's address, which the pages show; it must not contain a password.
        has_webhook: whether the pages say how the webhook stands.
        retention_file: the retention policy, which operators look at and confirm.
    """

    token: SecretStr | None = None
    port: int | None = None
    logged_in: timedelta = LOGGED_IN
    store: str = ""
    has_webhook: bool = False
    retention_file: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.token is not None:
            _checked(self.token)


def _checked(token: SecretStr) -> SecretStr:
    return check_token("LAPSE_ADMIN_TOKEN", token)


AdminToken = Annotated[SecretStr, AfterValidator(_checked)]
