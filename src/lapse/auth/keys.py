"""The public keys of an issuer: one that is given, or those that it publishes and changes."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

import httpx

from lapse.auth.options import SYMMETRIC
from lapse.core.errors import InvalidValueError
from lapse.core.loops import PerLoop
from lapse.core.unlogged import unlogged

_TIMEOUT: Final = timedelta(seconds=5)
_LARGEST: Final = 512 * 1024
_MOST_KEYS: Final = 100

_log = logging.getLogger(__name__)


_KIND: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""Which kind of key an algorithm takes, by how its name begins."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key that verifies signatures.

    Attributes:
        key: the key, as joserfc takes it.
        kind: as a JWK calls it (`RSA`, `EC`, `OKP`, `oct`); None: some public key.
        algorithm: the only one that it is for; None: any of its kind.
    """

    key: Any = field(repr=False)
    kind: str | None
    algorithm: str | None = None

    def fits(self, algorithm: str) -> bool:
        """Return whether it verifies signatures of an algorithm."""
        if algorithm in SYMMETRIC or self.kind == "oct":
            # A public key is no secret: whoever has it could sign with it.
            return algorithm in SYMMETRIC and self.kind == "oct"
        kinds = {None, _KIND.get(algorithm[:2])}
        return self.kind in kinds and self.algorithm in {None, algorithm}


class Keys(Protocol):
    """Where the key is that verifies a token."""

    async def find(self, kid: str | None) -> VerifyingKey | None:
        """Return the key of this id; None where there is none.

        Raises:
            KeysUnavailableError: no key is known yet, and none can be read now.
        """
        ...


class KeysUnavailableError(Exception):
    """The issuer's keys cannot be read."""


class OneKey:
    """A key that is given, whatever id a token names.

    Raises:
        InvalidValueError: the key does not fit the algorithms.
    """

    def __init__(self, key: str, algorithms: Sequence[str]) -> None:
        from lapse.auth.signatures import key_of

        prepared: Any = key
        try:
            for algorithm in algorithms:
                prepared = key_of(key, algorithm)
        except ValueError as error:
            reason = f"is no key for {algorithm} ({error}); set the key that the issuer signs with"
            raise InvalidValueError("LAPSE_JWT_KEY", reason) from None
        self._key = VerifyingKey(prepared, None if is_public(key) else "oct")

    async def find(self, kid: str | None) -> VerifyingKey | None:  # noqa: ARG002 - there is one
        """Return it."""
        return self._key


class PublishedKeys:
    """The keys at a JWKS URL, read again when they are old, or a token names another.

    While the URL does not answer, the last good keys hold. However many tokens name keys that
    do not exist, the URL is asked at most once in `pause`.
    """

    def __init__(
        self,
        url: str,
        *,
        fresh: timedelta = timedelta(minutes=5),
        pause: timedelta = timedelta(seconds=10),
    ) -> None:
        self._url = url
        self._fresh = fresh.total_seconds()
        self._pause = pause.total_seconds()
        self._keys: Mapping[str | None, VerifyingKey] = {}
        self._read_at: float | None = None
        self._asked_at: float | None = None
        self._reading = PerLoop(asyncio.Lock)
        self._tls: ssl.SSLContext | None = None

    async def find(self, kid: str | None) -> VerifyingKey | None:
        """Return the key of this id; of an issuer with one key, also without an id."""
        now = time.monotonic()
        if self._read_at is None:
            await self._read_again(unless=lambda: self._read_at is not None)
        elif now - self._read_at >= self._fresh and not self._reading.here().locked():
            await self._read_again()
        if self._read_at is None:
            raise KeysUnavailableError("the issuer's keys cannot be read")
        if self._find(kid) is None:
            await self._read_again(unless=lambda: self._find(kid) is not None)
        return self._find(kid)

    def _find(self, kid: str | None) -> VerifyingKey | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _read_again(self, unless: Callable[[], bool] = lambda: False) -> None:
        async with self._reading.here():
            now = time.monotonic()
            if unless() or (self._asked_at is not None and now - self._asked_at < self._pause):
                return
            self._asked_at = now
            try:
                if self._tls is None:
                    # It reads all certificates that this machine trusts.
                    self._tls = await asyncio.to_thread(httpx.create_ssl_context)
                with unlogged():
                    self._keys = await _published(self._url, self._tls)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError) as error:
                _log.warning("the keys of the tokens' issuer cannot be read: %s", _said(error))
                return
            except asyncio.CancelledError:
                self._asked_at = None
                raise
            self._read_at = time.monotonic()


def is_public(key: str) -> bool:
    """Return whether a key that is given as text is a public one, as PEM."""
    return key.lstrip().startswith("-----BEGIN")


async def _published(url: str, tls: ssl.SSLContext) -> dict[str | None, VerifyingKey]:
    """Read a JWKS; ValueError where it is none, or holds no key to verify with."""
    from lapse.auth.signatures import key_of

    timeout = _TIMEOUT.total_seconds()
    async with (
        asyncio.timeout(timeout),
        httpx.AsyncClient(timeout=timeout, verify=tls) as client,
        client.stream("GET", url) as answer,
    ):
        answer.raise_for_status()
        body = b""
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > _LARGEST:
                raise ValueError(f"over {_LARGEST} bytes")
    document = httpx.Response(200, content=body).json()
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no JSON object with `keys`")  # noqa: TRY004 - it is what was read
    keys: dict[str | None, VerifyingKey] = {}
    for one in listed[:_MOST_KEYS]:
        # A symmetric key that is published is no secret.
        if (
            not isinstance(one, dict)
            or one.get("kty") not in _KIND.values()
            or one.get("use", "sig") != "sig"
        ):
            continue
        try:
            key = key_of(one)
        except ValueError:
            continue  # of a kind that is not known here
        keys[key.kid] = VerifyingKey(key, key.key_type, one.get("alg"))
    if not keys:
        raise ValueError("no key to verify signatures with")
    return keys


def _said(error: Exception) -> str:
    """Return what went wrong without the URL, which may hold a secret."""
    match error:
        case httpx.HTTPStatusError():
            return f"it answers {error.response.status_code}"
        case httpx.InvalidURL():
            return type(error).__name__
        case _:
            return f"{type(error).__name__}: {error}"
