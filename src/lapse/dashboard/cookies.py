"""Signatures of log-in cookies and forms, and the limit on wrong tokens."""

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

from lapse.core.tokens import digest_of
from lapse.dashboard.options import own_key

TOKENS_NAME: Final = "operator"
"""The operator who uses the token. A name given at log-in follows after a colon."""

LONGEST_GIVEN_NAME: Final = 64

_TRIES: Final = 5
_WINDOW: Final = timedelta(minutes=1)
_MOST_SITES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator who may use the pages.

    Attributes:
        name: the name in the audit log.
        session: the log-in or the principal to which this operator's forms are bound.
        logged_in: whether a cookie identifies the operator, so that a log-out is possible.
    """

    name: str
    session: str
    logged_in: bool = False


class Signatures:
    """Signs cookies and forms with a key that is derived from the token.

    So all processes with the same token accept each other's signatures, and a new token ends
    every log-in. Without a token the key is this process's own, which workers of one server share.
    """

    def __init__(self, token: SecretStr | None, logged_in: timedelta) -> None:
        self._token = b"" if token is None else digest_of(token.get_secret_value())
        key = hashlib.sha256(b"lapse operators" + (self._token or own_key())).digest()
        self._age = int(logged_in.total_seconds())
        self._cookies = _serializer(key, "cookie")
        self._forms = _serializer(key, "form")

    def is_token(self, given: str) -> bool:
        """Return whether `given` is the token, in constant time."""
        return hmac.compare_digest(digest_of(given), self._token)

    def cookie(self, given_name: str) -> str:
        """Return the cookie of a new log-in; `given_name` may be empty."""
        name = f"{TOKENS_NAME}:{given_name}" if given_name else TOKENS_NAME
        return str(self._cookies.dumps([name, secrets.token_urlsafe(16)]))

    def read_cookie(self, cookie: str) -> Operator | None:
        """Return the operator of a cookie, or None if it is forged or too old."""
        try:
            name, session = self._cookies.loads(cookie, max_age=self._age)
        except (BadData, ValueError, TypeError):
            return None
        return Operator(str(name), str(session), logged_in=True)

    def form_token(self, session: str) -> str:
        """Return the token that a log-in's forms carry against cross-site request forgery."""
        return str(self._forms.dumps(session))

    def is_form_token(self, given: str, session: str) -> bool:
        """Return whether a form's token was made for this log-in and is not too old."""
        try:
            signed = self._forms.loads(given, max_age=self._age)
        except BadData:
            return False
        return isinstance(signed, str) and hmac.compare_digest(signed.encode(), session.encode())


def _serializer(key: bytes, purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        key, salt=f"lapse.{purpose}", signer_kwargs={"digest_method": hashlib.sha256}
    )


class Attempts:
    """A rate limit on wrong tokens: after five in a minute a site has to wait.

    A site is an address, or the /64 of an IPv6 address; see `site_of`.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, site: str) -> timedelta:
        """Return how long a site must wait before its next attempt; zero if it need not."""
        failures = self._failures.get(site)
        if failures is None or len(failures) < _TRIES:
            return timedelta(0)
        rest = failures[0] + _WINDOW.total_seconds() - time.monotonic()
        return timedelta(seconds=max(0.0, rest))

    def failed(self, site: str) -> None:
        """Count a wrong token from a site; only the newest 10,000 sites are kept."""
        self._failures.setdefault(site, deque(maxlen=_TRIES)).append(time.monotonic())
        self._failures.move_to_end(site)
        while len(self._failures) > _MOST_SITES:
            self._failures.popitem(last=False)
