"""What a browser keeps of a log-in, and who may try another: signatures and attempts."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from itsdangerous import BadData, URLSafeTimedSerializer
from pydantic import SecretStr

TOKENS_NAME: Final = "operator"
"""Who acts by the token; a name given at log-in follows after a colon."""

LONGEST_GIVEN_NAME: Final = 64

_TRIES: Final = 5
_WINDOW: Final = timedelta(minutes=1)
_MOST_ADDRESSES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Operator:
    """Who was let in.

    Attributes:
        name: as acts record it.
        session: what their forms are bound to: a log-in, or a principal.
        logged_in: whether a cookie says so, which can be taken back by a log-out.
    """

    name: str
    session: str
    logged_in: bool = False


class Signatures:
    """Signs cookies and forms with a key that follows from the token.

    So every process with the token reads what the others signed, and a new token ends every
    log-in. Without a token the key is this process's own.
    """

    def __init__(self, token: SecretStr | None, logged_in: timedelta) -> None:
        self._token = b"" if token is None else _digest(token.get_secret_value())
        key = hashlib.sha256(b"lapse operators" + (self._token or secrets.token_bytes(32))).digest()
        self._age = int(logged_in.total_seconds())
        self._cookies = _serializer(key, "cookie")
        self._forms = _serializer(key, "form")

    def is_token(self, given: str) -> bool:
        """Return whether it is the token; takes as long whatever is given."""
        return hmac.compare_digest(_digest(given), self._token)

    def cookie(self, given_name: str) -> str:
        """Return the cookie of a new log-in, of somebody who says their name, or none."""
        name = f"{TOKENS_NAME}:{given_name}" if given_name else TOKENS_NAME
        return str(self._cookies.dumps([name, secrets.token_urlsafe(16)]))

    def read_cookie(self, cookie: str) -> Operator | None:
        """Return whose cookie it is; None where it is forged, or too old."""
        try:
            name, session = self._cookies.loads(cookie, max_age=self._age)
        except (BadData, ValueError, TypeError):
            return None
        return Operator(str(name), str(session), logged_in=True)

    def form_token(self, session: str) -> str:
        """Return what the forms of a log-in carry, to tell them from others' forms."""
        return str(self._forms.dumps(session))

    def is_form_token(self, given: str, session: str) -> bool:
        """Return whether a form was made for this log-in, and not too long ago."""
        try:
            signed = self._forms.loads(given, max_age=self._age)
        except BadData:
            return False
        return isinstance(signed, str) and hmac.compare_digest(signed.encode(), session.encode())


def _serializer(key: bytes, purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        key, salt=f"lapse.{purpose}", signer_kwargs={"digest_method": hashlib.sha256}
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Attempts:
    """How often each address failed lately; it has to wait after a few times."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, address: str) -> timedelta:
        """Return how long an address has to wait before its next attempt."""
        failures = self._failures.get(address)
        if failures is None or len(failures) < _TRIES:
            return timedelta(0)
        rest = failures[0] + _WINDOW.total_seconds() - time.monotonic()
        return timedelta(seconds=max(0.0, rest))

    def failed(self, address: str) -> None:
        """Note a failure."""
        self._failures.setdefault(address, deque(maxlen=_TRIES)).append(time.monotonic())
        self._failures.move_to_end(address)
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)
