"""How much of creating sessions is allowed.

A creation takes a token first: it is refused while a bucket that it draws from is empty.
Afterwards what exceeds the quota of waiting sessions expires, the longest quiet first. That is a
statement of its own, after the creation: whichever of two creations at once comes last sees both.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple

from lapse.core.errors import InvalidValueError

SPAN: Final = timedelta(minutes=1)
"""A bucket that is full lets as many through at once as it fills in this time."""

EXCESS: Final = 500
"""Sessions over a quota that one creation expires, at most; the next one goes on."""


class Drawer(StrEnum):
    """Who draws from a bucket."""

    USER = "user"
    ADDRESS = "address"
    ALL = "all"


class Bucket(NamedTuple):
    """What creations draw from; full, it holds as many as it gets back in a SPAN.

    Attributes:
        name: unique; it tells a user and an address by a digest.
        per_span: how many.
    """

    name: str
    per_span: int

    @classmethod
    def of(cls, drawer: Drawer, whose: str, per_span: int) -> Bucket:
        """Return the bucket of a user, of an address, or of all."""
        digest = blake2b(whose.encode(), digest_size=8).hexdigest()
        return cls(f"{drawer}:{digest}" if whose else str(drawer), per_span)

    @property
    def drawer(self) -> Drawer:
        """Return who draws from it."""
        return Drawer(self.name.partition(":")[0])

    @property
    def step(self) -> timedelta:
        """Return how long it takes to get one back."""
        return SPAN / self.per_span


class Draw(NamedTuple):
    """The answer to a creation that wants a token from each of its buckets.

    Attributes:
        wait: for how long it is refused; zero when it may go on, and has drawn.
        bucket: the name of the bucket that takes longest to have one.
    """

    wait: timedelta
    bucket: str


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much of creating sessions is allowed; None where there is no limit.

    Attributes:
        waiting_per_user: waiting sessions of one user, in all apps: anyone may make up an app.
        waiting_per_address: waiting sessions that one address (of IPv6: one /64) has created.
        creates_per_user: creations a minute for one user, in all apps.
        creates_per_address: creations a minute by one address.
        creates: creations a minute by everybody together.
        reuse: whether a creation returns an empty session that the user has, if it does not
            say otherwise.
    """

    waiting_per_user: int | None = None
    waiting_per_address: int | None = None
    creates_per_user: int | None = None
    creates_per_address: int | None = None
    creates: int | None = None
    reuse: bool = False

    def __post_init__(self) -> None:
        limits = (
            self.waiting_per_user,
            self.waiting_per_address,
            self.creates_per_user,
            self.creates_per_address,
            self.creates,
        )
        if any(limit is not None and limit < 1 for limit in limits):
            raise InvalidValueError("quotas", "each must be at least 1, or None for no limit")

    @property
    def by_address(self) -> bool:
        """Return whether anything is counted by address."""
        return self.waiting_per_address is not None or self.creates_per_address is not None

    def buckets(self, user_id: str, site: str | None) -> list[Bucket]:
        """Return what a creation for a user from an address draws from."""
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
"""What is allowed where users are authenticated and nothing else is set."""
