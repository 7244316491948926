"""How many sessions may be created, and how many may wait.

A creation first draws a token from each of its buckets, and is refused if one of them is empty.
After it, the waiting sessions over a quota expire, those first that were quiet longest. That is a
statement of its own, so that the later of two creations at once sees both sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple

from lapse.core.arguments import check_fields
from lapse.core.errors import InvalidValueError

SPAN: Final = timedelta(minutes=1)
"""A full bucket holds as many tokens as it gains in this time."""

EXCESS: Final = 500
"""The maximum of sessions over a quota that one creation expires; the next creation goes on."""


class Drawer(StrEnum):
    """Whose creations draw from a bucket."""

    USER = "user"
    ADDRESS = "address"
    ALL = "all"


class Bucket(NamedTuple):
    """A bucket of tokens for creations.

    Attributes:
        name: unique; it holds a digest of the user or the address.
        per_span: how many tokens it gains in a SPAN, and how many it holds if it is full.
    """

    name: str
    per_span: int

    @classmethod
    def of(cls, drawer: Drawer, whose: str, per_span: int) -> Bucket:
        """Return the bucket of a user or an address; of all users if `whose` is empty."""
        digest = blake2b(whose.encode(), digest_size=8).hexdigest()
        return cls(f"{drawer}:{digest}" if whose else str(drawer), per_span)

    @property
    def drawer(self) -> Drawer:
        """Return whose creations draw from it."""
        return Drawer(self.name.partition(":")[0])

    @property
    def step(self) -> timedelta:
        """Return how long it takes to gain one token."""
        return SPAN / self.per_span


class Draw(NamedTuple):
    """The answer to a creation that wants a token from each of its buckets.

    Attributes:
        wait: how long until all buckets have a token; zero: the tokens are drawn.
        bucket: the name of the bucket that has the longest wait.
    """

    wait: timedelta
    bucket: str


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many sessions may be created, and how many may wait; None means no limit.

    Attributes:
        waiting_per_user: waiting sessions of one user in all apps, because clients can make up
            names of apps.
        waiting_per_address: waiting sessions created from one address (with IPv6: one /64).
        creates_per_user: creations per minute for one user in all apps.
        creates_per_address: creations per minute from one address.
        creates: creations per minute by all users together.
        reuse: whether a creation that does not say it returns an empty session of the user, if
            there is one.
    """

    waiting_per_user: int | None = None
    waiting_per_address: int | None = None
    creates_per_user: int | None = None
    creates_per_address: int | None = None
    creates: int | None = None
    reuse: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if any(limit < 1 for limit in self._limits):
            raise InvalidValueError("quotas", "each must be at least 1, or None for no limit")

    @property
    def _limits(self) -> Sequence[int]:
        given = (
            self.waiting_per_user,
            self.waiting_per_address,
            self.creates_per_user,
            self.creates_per_address,
            self.creates,
        )
        return [limit for limit in given if limit is not None]

    @property
    def limited(self) -> bool:
        """Return whether there is any limit."""
        return bool(self._limits)

    @property
    def by_address(self) -> bool:
        """Return whether one of the limits counts by address."""
        return self.waiting_per_address is not None or self.creates_per_address is not None

    def buckets(self, user_id: str, site: str | None) -> list[Bucket]:
        """Return the buckets from which a creation for a user and from an address draws."""
        limits = (
            (Drawer.USER, user_id, self.creates_per_user),
            (Drawer.ADDRESS, site, self.creates_per_address),
            (Drawer.ALL, "", self.creates),
        )
        return [
            Bucket.of(drawer, whose, limit)
            for drawer, whose, limit in limits
            if limit is not None and whose is not None
        ]


USUAL: Final = Quotas(
    waiting_per_user=5,
    waiting_per_address=20,
    creates_per_user=10,
    creates_per_address=30,
    creates=6000,
)
"""The quotas if users are authenticated and nothing else is set."""
