"""What an idempotency key is, and what belongs to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey

HEADER: Final = "Idempotency-Key"

KEPT: Final = timedelta(hours=24)
"""How long a key is kept from its first request on. Later it counts as a new key."""

_LONGEST: Final = 255
_OWNER_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with an idempotency key. It holds digests only, and no content.

    Attributes:
        key: a digest of the key and of what it belongs to: the session, or for a creation the user
            in the app. Another user's key has another digest.
        owner: a digest of the app and the user, whose keys are counted together.
        request: a digest of the route and the body. A repeat has the same.
        most: how many keys the owner may have.
    """

    key: str
    owner: str
    request: str
    most: int

    def event_id(self, what: str) -> str:
        """Return the id of an event that the request brings, which is the same for each repeat.

        `what` tells the event from others of the request, and from those of a later request that
        uses the key after it was forgotten.
        """
        return str(UUID(bytes=sha256(f"{self.key} {what}".encode()).digest()[:16], version=4))


@dataclass(frozen=True, slots=True)
class KeyRules:
    """The limits of idempotency keys.

    Attributes:
        per_user: the most keys of one user in one app that are kept at a time.
    """

    per_user: int = 10_000

    def request(self, key: str, session: SessionKey, route: str, body: bytes) -> KeyedRequest:
        """Return the request that a header `Idempotency-Key` makes repeatable.

        Args:
            key: the header's value, as it was sent.
            session: the session of the request; for a creation its id is empty.
            route: the name of the route.
            body: the bytes of the request's body.

        Raises:
            InvalidValueError: the key is not 1 to 255 visible ASCII characters.
        """
        if not 0 < len(key) <= _LONGEST or not all("!" <= one <= "~" for one in key):
            raise InvalidValueError(
                HEADER, f"must be 1 to {_LONGEST} visible ASCII characters, sent once"
            )
        return KeyedRequest(
            key=_digest(*session, key),
            owner=owner_of(*session[:2]),
            request=sha256(route.encode() + b"\0" + body).hexdigest(),
            most=self.per_user,
        )


def owner_of(app_name: str, user_id: str) -> str:
    """Return the digest that owns the keys of a user in an app."""
    return _digest(app_name, user_id)[:_OWNER_DIGITS]


def _digest(*parts: str) -> str:
    return sha256(json.dumps(parts).encode()).hexdigest()
