"""Operations on a store, written once for all databases, as generators that ask for statements.

An operation yields what it asks for and is sent the answer. A database drives it: SQLite runs it
as one transaction in its writer's thread; PostgreSQL runs each statement as a transaction and a
round trip of its own. Three rules follow:

- An operation is right even if something else commits between two of its statements, unless it
  says `together`.
- A database may drive an operation again from its beginning, so an operation has no effects
  outside the store.
- An operation that refuses (`LapseError`) does so before it writes.

A connection may break before the answer comes. The database then drives the operation again, and
that repeat does only what the call asked for. Each operation that writes says in its docstring how
its repeat is recognised: by what it wrote (an event's id, a condition that no longer holds), by
what it saw first (`as_first_seen`), or by the note that the first attempt left (`done_before`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
)

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Rules

if TYPE_CHECKING:
    from lapse.store.database import Database, Snapshot

P = ParamSpec("P")
S = TypeVar("S", bound="Part")
T = TypeVar("T")

NO_SESSION: Final = SessionKey("", "", "")


class Dialect(StrEnum):
    """The kinds of SQL that operations are written for."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


class Row(Protocol):
    """A row: each column's value by its name, as plain data.

    Times are aware datetimes, spans are timedeltas, documents are JSON text. `now` is the moment
    of the statement by the store's clock, if the statement returns it.
    """

    def __getitem__(self, column: str, /) -> Any: ...


class Answer(list[Row]):
    """The rows of a statement.

    `in_doubt` is True if an earlier attempt of the call broke off and may have been carried out:
    what the statement finds may be the work of that attempt.
    """

    in_doubt: bool = False


class Ask(NamedTuple):
    """A named statement, the session it is about, and its parameters as plain values.

    Every statement can also use the session's key, the moment and the store's rules: `app_name`,
    `user_id`, `session_id`, `now`, `enforced`, `horizon`, `extensible`, `shortest_restore`,
    `artifacts`. A statement without text is a no-op and answers with no rows: on its dialect the
    work is a part of another statement.
    """

    name: str
    key: SessionKey = NO_SESSION
    params: Mapping[str, Any] = {}
    enough: Callable[[Row], bool] | None = None
    """Called with each row: once it returns True, a database that reads row by row may stop."""


class Native(NamedTuple):
    """A call of a function that each dialect has, for what named statements cannot express."""

    name: str
    key: SessionKey
    arguments: tuple[Any, ...]


class FirstSeen(NamedTuple):
    """A value for which a database answers with the one of the call's first attempt."""

    value: Any


Request: TypeAlias = Ask | Native | FirstSeen | type[Dialect]

Asking = Generator[Request, Any, T]


def rows(name: str, key: SessionKey = NO_SESSION, **params: Any) -> Asking[Answer]:
    """Run a statement; return its rows."""
    answer: Answer = yield Ask(name, key, params)
    return answer


def rows_until(name: str, enough: Callable[[Row], bool], **params: Any) -> Asking[Answer]:
    """Run a statement and read its rows until `enough` is True of one; return the rows read."""
    answer: Answer = yield Ask(name, NO_SESSION, params, enough)
    return answer


def first(name: str, key: SessionKey = NO_SESSION, **params: Any) -> Asking[Row | None]:
    """Run a statement that answers with at most one row; return it."""
    answer: Answer = yield Ask(name, key, params)
    return answer[0] if answer else None


def only(name: str, key: SessionKey = NO_SESSION, **params: Any) -> Asking[Row]:
    """Run a statement that answers with exactly one row; return it."""
    answer: Answer = yield Ask(name, key, params)
    return answer[0]


def native(name: str, key: SessionKey, *arguments: Any) -> Asking[Any]:
    """Call a function of the dialect; return its result."""
    return (yield Native(name, key, arguments))


def together(key: SessionKey, asking: Callable[[], Asking[T]]) -> Asking[T]:
    """Do a part of an operation in one transaction: that of the operation if it has one.

    On PostgreSQL the statements of other operations are transactions of their own.
    """
    done: T = yield Native("together", key, (asking,))
    return done


def apart(work: Callable[..., T], *arguments: Any) -> Asking[T]:
    """Call a pure function that takes long, where nobody waits for it but this operation."""
    done: T = yield Native("apart", NO_SESSION, (work, *arguments))
    return done


def as_first_seen(value: T) -> Asking[T]:
    """Return what the first attempt of the call saw here, which is `value` in that attempt.

    A repeat then acts on the same thing, and not on what has taken its place since. An operation
    uses this once.
    """
    seen: T = yield FirstSeen(value)
    return seen


def done_before(answer: Answer) -> Asking[Row | None]:
    """Return the note of an attempt that has done what this statement did not do again.

    None: there is no such attempt. Statements with the part `once` or `noted` leave a note, and an
    operation asks for one such statement at most.
    """
    if answer or not answer.in_doubt:
        return None
    return (yield from first("attempt"))


def confirmed() -> Asking[None]:
    """Make sure that what the operation has read is as durable as what it would have written.

    An operation that finds its work done already asks for this before it says so. A row can be read
    that a failover would lose: one whose writer has stopped waiting for the synchronous standby.
    """
    yield from rows("confirm")


def dialect() -> Asking[Dialect]:
    """Return the dialect that drives the operation, for the few operations that depend on it."""
    found: Dialect = yield Dialect
    return found


class Part:
    """A group of operations on one database.

    A part holds nothing but the database: it costs nothing to make, and any number of parts may
    share a database.
    """

    def __init__(self, database: Database | Snapshot) -> None:
        self._database = database

    @property
    def rules(self) -> Rules:
        """Return the rules that the store enforces."""
        return self._database.rules


def operation(
    *, writes: bool = True, flushed: bool = True, together: bool = False
) -> Callable[
    [Callable[Concatenate[S, P], Asking[T]]],
    Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
]:
    """Make an operation, an asynchronous method, of a part's generator.

    Args:
        writes: False for an operation that only reads.
        flushed: False if a crash may undo it, because it means nothing once the process is gone.
        together: True if all of its statements must be one transaction on every database.
    """

    def decorate(
        function: Callable[Concatenate[S, P], Asking[T]],
    ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
        async def method(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
            return await self._database.run(
                lambda: function(self, *args, **kwargs),
                writes=writes,
                flushed=flushed,
                together=together,
            )

        return cast("Callable[Concatenate[S, P], Coroutine[Any, Any, T]]", wraps(function)(method))

    return decorate


def as_part(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Asking[T]]:
    """Return an operation as a generator function, to run it as a part of another operation."""
    asking: Callable[Concatenate[S, P], Asking[T]] = method.__wrapped__  # type: ignore[attr-defined]
    return asking


def key_of(row: Row) -> SessionKey:
    """Return the key of a session's row."""
    return SessionKey(row["app_name"], row["user_id"], row["session_id"])


def after(key: SessionKey | None) -> Mapping[str, Any]:
    """Return the parameters of a statement that reads on after a key; None: from the start."""
    names = ("after_app", "after_user", "after_session")
    return dict(zip(names, key or NO_SESSION, strict=True))


def names_of(keys: Sequence[SessionKey]) -> Mapping[str, Any]:
    """Return the parameters that hold many keys, as one list for each of a key's columns."""
    columns = [list(column) for column in zip(*keys, strict=True)] or [[], [], []]
    return dict(zip(("app_names", "user_ids", "session_ids"), columns, strict=True))
