"""What a new SQL store implements, and the state of a store that is not open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, Self, TypeVar

from lapse.core.errors import InvalidValueError
from lapse.core.lifecycle import Rules
from lapse.store.operation import Asking
from lapse.store.options import ConnectionOptions

T = TypeVar("T")

CLOSED: Final = "the store is closed; open it to use it again"


@dataclass(frozen=True, slots=True)
class Inspection:
    """The state of a store.

    Attributes:
        now: the store's time.
        version: the version of its schema; 0 if Lapse has created nothing yet.
        newest: the version to which this Lapse migrates a store when it opens it.
        script: the SQL that `open` would run; empty if the store is ready.
        missing_indexes: the indexes of the schema's version that are missing or invalid.
        expire: how many sessions the next sweep expires, counted up to a limit.
        purge: how many expired sessions the next sweep deletes for good, counted up to the limit.
        used_but_expired: how many sessions are expired although they had a message, counted up to
            the limit; it must always be 0.
    """

    now: datetime
    version: int
    newest: int
    script: str
    missing_indexes: Sequence[str] = ()
    expire: int = 0
    purge: int = 0
    used_but_expired: int = 0


def check_store(**given: object) -> None:
    """Check arguments, by their names, which must be stores.

    Raises:
        InvalidValueError: one is none.
    """
    for name, value in given.items():
        if not all(hasattr(value, member) for member in ("rules", "run", "at", "inspect")):
            kind = type(value).__name__
            raise InvalidValueError(
                name, f"must be a store, such as store_from_url('sqlite:///chats.db'), not a {kind}"
            )


class Snapshot(Protocol):
    """A database as it was at one moment, which parts can read like a `Database`."""

    @property
    def rules(self) -> Rules:
        """Return the rules that the store enforces."""
        ...

    async def run(
        self,
        asking: Callable[[], Asking[T]],
        *,
        writes: bool = True,
        flushed: bool = True,
        together: bool = False,
    ) -> T:
        """Drive an operation that only reads, and return its result."""
        ...


class Database(Protocol):
    """A database that holds sessions, and its clock.

    The operations stand in parts, which ask the database for named statements
    (`lapse.store.sessions` and the slices). When an operation returns, its effect is durable; when
    it raises, nothing was written, unless it raises OutcomeUnknownError. Time is the store's own
    and half-open: a session is live while `now < expires_at` and due once `expires_at <= now`.
    """

    @property
    def rules(self) -> Rules:
        """Return the rules that this store enforces."""
        ...

    def default_to(self, rules: Rules, options: ConnectionOptions) -> None:
        """Use these rules and options where the constructor got none; call this before `open`."""
        ...

    async def open(self) -> None:
        """Connect and bring the schema up to date; a second call does nothing.

        After `close` it opens the store again.

        Raises:
            StoreRefusedError: its tables are foreign or of another version, or it cannot be
                written.
        """
        ...

    async def close(self) -> None:
        """Finish the work in hand and release every resource; a second call does nothing.

        It may be called on any event loop, and raises nothing. The store refuses everything until
        `open` is called.
        """
        ...

    async def inspect(self, *, most: int = 0) -> Inspection:
        """Return the state of the store, and change nothing: create no file and no table.

        Sessions are counted up to `most` of each kind, which reads the rows of all expired
        sessions; 0 counts none.

        Raises:
            StoreRefusedError: `open` would raise it.
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
        """Drive an operation to its end and return its result; open the store if it is not open.

        `asking` makes the operation's generator, and may be called more than once:
        `lapse.store.operation` says why, and what the options mean.

        Raises:
            StoreUnavailableError: the store does not answer, nothing is known to have been
                written, and the operation may be repeated.
            NotWithThisStoreError: the store lacks one of the operation's statements.
        """
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Open the store as it is at one moment, for reads that are more than one operation.

        Operations of a part that is made with the snapshot read what was committed before it was
        opened, and nothing later. It has a connection of its own, and must not stay open for long:
        meanwhile no database can clean up what is deleted.

        Raises:
            StoreUnavailableError: the store does not answer, now or inside the block.
        """
        ...

    async def scrub(self) -> str | None:
        """Take what was deleted out of the database's files, as far as that can be done here.

        It may take long, and nobody can write meanwhile. Returns what remains, as a sentence;
        None: nothing does.

        Raises:
            StoreUnavailableError: the store does not answer, or another process writes all the
                time.
        """
        ...

    def listen(
        self, channel: str, hear: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None]:
        """Call `hear` with each text that is sent to a channel, while the context is entered.

        A text is a hint: it may come late or never. On a store that cannot notify this is a no-op.
        """
        ...

    async def notify(self, channel: str, texts: Iterable[str]) -> None:
        """Send texts of at most 7,999 bytes to all listeners; a no-op if the store cannot."""
        ...

    def at(self, now: datetime) -> Self:
        """Return the same store with its clock stopped at `now`; only for tests."""
        ...
