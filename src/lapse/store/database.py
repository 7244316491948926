"""What a new SQL store implements, and what can be said of one that is not open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self, TypeVar

from lapse.core.lifecycle import Rules
from lapse.store.operation import Asking

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inspection:
    """How a store is.

    Attributes:
        now: its clock.
        version: its schema's version; 0 where Lapse has created nothing yet.
        newest: the version that this Lapse brings it up to when it opens it.
        script: the SQL that `open` would run; empty when the store is ready.
        missing_indexes: those that its version should have and it has not, or that are invalid.
        expire: sessions that the next sweep expires, as far as they were counted.
        purge: expired sessions that the next sweep deletes for good; likewise.
        used_but_expired: sessions that count as expired although they had a message, which must
            never be; likewise.
    """

    now: datetime
    version: int
    newest: int
    script: str
    missing_indexes: Sequence[str] = ()
    expire: int = 0
    purge: int = 0
    used_but_expired: int = 0


class Database(Protocol):
    """A place where sessions live, and its clock.

    What is done there stands in the parts that ask it for named statements (`lapse.store.sessions`
    and the slices). When an operation returns, its effect is durable; when it raises, nothing was
    written. Time is the store's own and half-open: live means `now < expires_at`, due means
    `expires_at <= now`.
    """

    @property
    def rules(self) -> Rules:
        """Return what this store enforces."""
        ...

    async def open(self) -> None:
        """Connect and bring the schema up to date; a second call does nothing.

        Raises:
            StoreRefusedError: it is foreign, of another version, or cannot be written.
        """
        ...

    async def close(self) -> None:
        """Finish what was begun and let go of every resource; a second call does nothing."""
        ...

    async def inspect(self, *, most: int = 0) -> Inspection:
        """Look at the store as it is, and change nothing: not its schema, nor make its file.

        Sessions are counted up to `most`, which reads the rows of all that are expired; 0 counts
        none.

        Raises:
            StoreRefusedError: it cannot be used as it is: as `open`.
        """
        ...

    async def run(
        self,
        asking: Callable[[], Asking[T]],
        *,
        writes: bool = True,
        flushed: bool = True,
        together: bool = False,
    ) -> T:
        """Drive an operation to its end and return what it returns; opens the store if need be.

        `asking` begins it, and may be called again: see `lapse.store.operation`, which also says
        what the options mean.

        Raises:
            StoreUnavailableError: the store does not answer, nothing is known to have been
                written, and the operation may be repeated.
            NotWithThisStoreError: the store has no such statement.
        """
        ...

    def listen(
        self, channel: str, hear: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None]:
        """Call `hear` with each text that anybody sends to a channel, inside the context.

        Only a hint: it may come late or never, where the store, or what stands in between, has no
        way to tell. Then it is a no-op.
        """
        ...

    async def notify(self, channel: str, texts: Iterable[str]) -> None:
        """Send texts, each of at most 7,999 bytes, to all who listen; a no-op as for `listen`."""
        ...

    def at(self, now: datetime) -> Self:
        """Return the same store by a clock that stands still: for tests alone."""
        ...
