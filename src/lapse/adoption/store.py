"""The part of the Store protocol about sessions of ADK's tables that Lapse did not create.

An orphan is such a session without a message. Adoption moves orphans into the lobby, where
they wait, or are expired and restorable for a whole horizon; undoing it puts them back. Each
method is one transaction, as everywhere in the Store protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change


@dataclass(frozen=True, slots=True)
class Selection:
    """Which orphans to adopt.

    Never taken are those of an evaluation, those that await somebody's answer (a tool's
    confirmation, a long-running call), and those with more events than the lobby holds.

    Attributes:
        app_name: of this app only.
        older_than: created at least this long ago.
        since: created then or later.
        with_state: also those whose state is not empty.
        with_events: also those that have events, none of which is a message.
    """

    app_name: str | None = None
    older_than: timedelta = timedelta(0)
    since: datetime | None = None
    with_state: bool = False
    with_events: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of an adoption.

    Attributes:
        run: the id under which it can be undone.
        selection: what to take.
        ttl: the TTL of what it takes, counted from creation.
        after: where the batch before it ended; None for the first.
        limit: how many sessions to examine.
    """

    run: str
    selection: Selection
    ttl: timedelta
    after: SessionKey | None
    limit: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """What one batch of an adoption did.

    Attributes:
        changes: one for each adopted session.
        examined: how many of ADK's sessions it looked at.
        last: the last of them, where the next batch goes on; None at the end.
    """

    changes: Sequence[Change]
    examined: int
    last: SessionKey | None


@dataclass(frozen=True, slots=True)
class PutBack:
    """What one batch of an undo did.

    `taken` sessions were tried and `put_back` of them are in ADK's tables again; for the
    others ADK has made a session of the same key. `last` is as in `Adopted`.
    """

    put_back: int
    taken: int
    last: SessionKey | None


@dataclass(frozen=True, slots=True)
class Adoption:
    """A run of adoption: how many sessions it took, and how many of them are in the lobby."""

    run: str
    began_at: datetime
    sessions: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """A session that ended while nobody had spoken to it, whose artifacts are to be deleted.

    `lives` tells that there is a session of the same key again; `attempts` counts this one.
    """

    key: SessionKey
    ended_at: datetime
    attempts: int
    lives: bool


class AdoptingStore(Protocol):
    """What a store can do with sessions of ADK's tables, and with what ended sessions leave."""

    async def adopt(self, batch: Batch) -> Adopted:
        """Examine the sessions that come next by key, and adopt those selected.

        A session that a writer is at work with is left out, and so is one that has a message
        by the time that it is locked. A young one waits for the rest of the TTL since its
        creation; any other is expired and restorable for the whole horizon from now. A writer
        of Lapse that has read a session before can append to it afterwards all the same.
        """
        ...

    async def put_back(self, run: str, *, after: SessionKey | None, limit: int) -> PutBack:
        """Put at most `limit` sessions of a run, those that follow `after`, back as they were.

        To the letter, where nothing changed in the lobby; else as they are now. Left out are
        those that are used, past restoring, or just being written.
        """
        ...

    async def adoptions(self) -> Sequence[Adoption]:
        """Return the runs of adoption, the oldest first; forget what cannot be put back."""
        ...

    async def prepared_at(self) -> datetime:
        """Return when Lapse's tables were made in this database."""
        ...

    async def take_outbox(self, limit: int) -> Sequence[Leftover]:
        """Take ended sessions whose artifacts are due to be deleted.

        Each comes again after a growing pause until it is settled, in whatever process.
        """
        ...

    async def settle_outbox(self, leftover: Leftover) -> None:
        """Note that the artifacts of an ended session are deleted."""
        ...
