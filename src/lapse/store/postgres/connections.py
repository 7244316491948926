"""Connections to PostgreSQL: the pool, what counts as an outage, and repeating after one."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from lapse.core.errors import (
    InvalidValueError,
    LapseError,
    OutcomeUnknownError,
    StoreRefusedError,
    StoreUnavailableError,
)
from lapse.core.log_rate import LogRateLimit
from lapse.store.database import CLOSED
from lapse.store.operation import FirstSeen
from lapse.store.options import ConnectionOptions, PostgresFeature
from lapse.store.postgres.place import PARTING, Connection
from lapse.store.postgres.pool import Pool
from lapse.store.postgres.transaction import transaction
from lapse.store.urls import place_of

T = TypeVar("T")

Taken: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

APPLICATION: Final = "lapse"

NOT_NOW: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock, serialisation
    asyncpg.LockNotAvailableError,  # a statement with a lock_timeout
    asyncpg.ReadOnlySQLTransactionError,  # a standby, in the middle of a failover
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asked after the server's last word, before it hung up
    OSError,
    TimeoutError,
)
"""Errors of an outage: the server did not do the work, or did not say whether it did."""

_UNDONE: Final = (
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
)
"""Those errors of an outage with which the server says that nothing was done."""

CONNECTING: Final = (*NOT_NOW, asyncpg.PostgresError, ValueError)
"""Errors of a connection that is not made: of an outage, the server's refusal, or a wrong URL."""
_UNTRACKED: Final = (
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.InvalidSQLStatementNameError,
)
"""Errors of a connection on which others prepare statements, too."""

_SHARED: Final = (
    "a pooler lends each transaction another connection and does not track prepared statements; "
    "set LAPSE_STATEMENT_CACHE=0"
)

_TOO_LITTLE: Final = "run `lapse migrate --store URL --role ROLE` as the owner of the tables"

_log = logging.getLogger(__name__)
_log.addFilter(LogRateLimit())

_FIRST_PAUSE: Final = timedelta(milliseconds=50)


@dataclass(slots=True)
class Attempts:
    """What is known of the attempts of one call: the first, and its repeats after outages.

    Attributes:
        number: marks the call's notes in the store; the same for all attempts.
        in_doubt: whether an attempt broke off that may have been carried out.
    """

    number: int = field(default_factory=lambda: random.getrandbits(63))
    in_doubt: bool = False
    _seen: FirstSeen | None = None

    @property
    def failure(self) -> type[StoreUnavailableError]:
        """Return the error that tells whether anything may have been done."""
        return OutcomeUnknownError if self.in_doubt else StoreUnavailableError

    def first_seen(self, now: FirstSeen) -> FirstSeen:
        """Return what the first attempt saw; `now` if this is the first."""
        self._seen = self._seen or now
        return self._seen


class Connections:
    """The connections of one process to a server, and how they are used."""

    def __init__(self, url: str, options: ConnectionOptions) -> None:
        self._dsn = plain_url(url)
        self.place = place_of(url)
        self._options = options
        self.are_prepared = False
        """Whether the schema is known to be up to date."""
        self._pool = Pool(options.pool_size, self._make, options.connect_timeout)

    @property
    def without(self) -> frozenset[PostgresFeature]:
        """Return which features the server lacks."""
        return self._options.without

    def open(self) -> None:
        """Make connections again, after `close`."""
        self._pool.open()

    def default_to(self, options: ConnectionOptions) -> None:
        """Connect like this from now on."""
        self._options = options
        self._pool.limit(options.pool_size, options.connect_timeout)

    async def connect(self) -> asyncpg.Connection:
        """Return a connection outside any pool.

        Raises:
            StoreUnavailableError: the server does not answer, or does not let Lapse in.
            InvalidValueError: the driver cannot read the URL.
        """
        try:
            connection = await self._make()
        except CONNECTING as error:
            raise not_connected(error, self.place) from None
        await self._pool.note(connection)
        return connection

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[asyncpg.Connection]:
        """Enter a connection of the pool; what fails is not repeated.

        Raises:
            StoreUnavailableError: the server does not answer, now or inside the context, or the
                store is closed.
            StoreRefusedError: a pooler shares the connection, which the settings do not allow.
        """
        if self._pool.is_closed:
            raise StoreUnavailableError(CLOSED)
        try:
            place = await self._pool.take()
        except CONNECTING as error:
            raise not_connected(error, self.place) from None
        assert place.connection is not None
        with self._answering():
            try:
                yield place.connection
            except BaseException as error:
                await self._pool.give_back_after(place, error)
                raise
            self._pool.give_back(place)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[asyncpg.Connection]:
        """Enter a connection outside any pool; leaving closes it.

        Raises:
            StoreUnavailableError: the server does not answer, now or inside the context.
            StoreRefusedError: a pooler shares the connection, which the settings do not allow.
        """
        connection = await self.connect()
        try:
            with self._answering():
                yield connection
        finally:
            with suppress(*NOT_NOW):
                await connection.close(timeout=PARTING.total_seconds())

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raise what a connection outside `_repeat` fails with as errors of the store."""
        try:
            yield
        except _UNTRACKED as error:
            raise StoreRefusedError(f"{self.place}: {_SHARED}") from error
        except NOT_NOW as error:
            if not _is_outage(error):
                raise
            raise unavailable(error, self.place) from error

    async def fetch(
        self, sql: str, arguments: Sequence[Any], attempts: Attempts, *, writes: bool
    ) -> list[asyncpg.Record]:
        """Run one statement and return its rows: one round trip, one transaction.

        While the server does not answer, the statement is repeated, for as long as `patience`
        says. One that writes must be safe to repeat: it may never be known whether the first
        attempt was carried out. `attempts` then says that it is in doubt.

        Raises:
            StoreUnavailableError: the call is not carried out.
            OutcomeUnknownError: an attempt of the call may have been carried out.
        """
        return await self._repeat(
            lambda taken: taken.fetch(sql, *arguments), attempts, writes=writes
        )

    async def try_for(
        self, sql: str, arguments: Sequence[Any], calls: Sequence[Attempts]
    ) -> list[asyncpg.Record]:
        """Run one statement for several calls, once, and return its rows; none if it fails.

        A statement that fails has done nothing, or may have been carried out: then each of `calls`
        says that it is in doubt. Each call does its own work afterwards, and raises its own error.
        """
        try:
            place = await self._pool.take()
        except CONNECTING:
            return []
        assert place.connection is not None
        try:
            rows: list[asyncpg.Record] = await place.connection.fetch(sql, *arguments)
        except BaseException as error:
            if _may_be_done(error):
                for attempts in calls:
                    attempts.in_doubt = True
            await self._pool.give_back_after(place, error)
            if isinstance(error, (*CONNECTING, *_UNTRACKED)):
                return []
            raise
        self._pool.give_back(place)
        return rows

    async def transact(self, work: Callable[[Taken], Awaitable[T]], attempts: Attempts) -> T:
        """Run several statements as one transaction; it repeats and raises as `fetch` does."""

        async def run(taken: Taken) -> T:
            async with transaction(taken):
                return await work(taken)

        return await self._repeat(run, attempts, writes=True)

    async def close(self) -> None:
        """Close all connections, and make none until `open`.

        A server that is silent delays it by no more than PARTING, twice.
        """
        await self._pool.close()

    async def _repeat(
        self,
        work: Callable[[Taken], Awaitable[T]],
        attempts: Attempts,
        *,
        writes: bool,
    ) -> T:
        """Do work on a connection of the pool, again after each outage, until patience ends."""
        end = time.monotonic() + self._options.patience.total_seconds()
        pause = _FIRST_PAUSE.total_seconds()
        while True:
            if self._pool.is_closed:
                raise attempts.failure(CLOSED)
            begun = False
            try:
                place = await self._pool.take()
                assert place.connection is not None
                begun = True
                try:
                    done = await work(place.connection)
                except BaseException as error:
                    await self._pool.give_back_after(place, error)
                    raise
                self._pool.give_back(place)
            except _UNTRACKED as error:
                raise unavailable(_SHARED, self.place, attempts.failure) from error
            except CONNECTING as error:
                if not _is_outage(error):
                    refusal = _refused if begun else not_connected
                    raise refusal(error, self.place) from None
                attempts.in_doubt |= begun and writes and _may_be_done(error)
                if time.monotonic() + pause > end:
                    raise unavailable(error, self.place, attempts.failure) from error
            else:
                return done
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause *= 2

    async def _make(self) -> Connection:
        connection: Connection = await asyncpg.connect(
            self._dsn,
            connection_class=Connection,
            timeout=self._options.connect_timeout.total_seconds(),
            command_timeout=self._options.statement_timeout.total_seconds(),
            statement_cache_size=self._options.statement_cache,
            server_settings={"application_name": APPLICATION},
        )
        return connection


def plain_url(url: str) -> str:
    """Return a URL in libpq's form, without the driver that SQLAlchemy's form may name.

    Raises:
        InvalidValueError: it is not a URL. The error does not quote it, as it may hold a password.
    """
    scheme, separator, rest = url.partition("://")
    try:
        parts = urlsplit(url)
        # The driver takes the first `@` for the end of the password, and Python the last.
        hosts = parts.netloc.partition("@")[2 if "@" in parts.netloc else 0].split(",")
        ports = [int(port) for host in hosts if (port := host.rpartition("]")[2].partition(":")[2])]
        whole = "@" not in "".join((*hosts, parts.query, parts.fragment, parts.path))
        parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        whole, ports = False, []
    if not whole or not all(0 < port < 1 << 16 for port in ports):
        escapes = ": / ? # [ ] @ as %3A %2F %3F %23 %5B %5D %40"
        reason = f"is not a URL; in a user name or a password, write {escapes}"
        raise InvalidValueError("store URL", reason)
    return f"{scheme.partition('+')[0]}{separator}{rest}"


def _is_outage(error: BaseException) -> bool:
    """Return whether an error is one of an outage; the driver's ValueErrors are of an argument."""
    return isinstance(error, NOT_NOW) and not isinstance(error, ValueError)


def _may_be_done(error: BaseException) -> bool:
    """Return whether a statement that failed with this error may have been carried out."""
    is_refused = isinstance(error, asyncpg.PostgresError) and not _is_outage(error)
    return not (is_refused or isinstance(error, (*_UNDONE, ValueError)))


def _refused(error: BaseException, place: str) -> BaseException:
    """Return the error for a statement that the server refuses."""
    if not isinstance(error, asyncpg.InsufficientPrivilegeError):
        return error
    refusal = unavailable(f"{error}; {_TOO_LITTLE}", place)
    _log.warning("%s", refusal)  # clients are not told
    return refusal


def not_connected(error: BaseException, place: str) -> LapseError:
    """Return the error that says why a connection was not made; `place` is that of `place_of`.

    It does not quote the driver, whose words may hold a password, nor the server, whose words hold
    the user.
    """
    if _is_outage(error):
        return unavailable(error, place)
    kind = type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        told = f"has no certificate that is accepted ({error.verify_message})"
        return StoreUnavailableError(
            f"PostgreSQL ({_named(place)}): {told}; check sslmode and sslrootcert in the URL"
        )
    if isinstance(error, ValueError):
        return InvalidValueError("store URL", f"must be one that the driver can read ({kind})")
    return StoreUnavailableError(
        f"PostgreSQL ({_named(place)}): does not let Lapse in ({kind}); check the user, the "
        "password, the database and pg_hba.conf"
    )


def unavailable(
    reason: BaseException | str,
    place: str,
    kind: type[StoreUnavailableError] = StoreUnavailableError,
) -> StoreUnavailableError:
    """Return the error that says the server at a place does not answer; it holds no password."""
    return kind(f"PostgreSQL ({_named(place)}): {str(reason) or type(reason).__name__}")


def _named(place: str) -> str:
    """Return a place with the host that the driver takes where the URL names none."""
    if urlsplit(place).netloc or "?" in place:
        return place
    return f"{place} at {os.environ.get('PGHOST') or 'the usual socket, for its URL has no host'}"
