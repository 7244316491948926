"""Connections to PostgreSQL: the pool, what counts as an outage, and repeating after one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from lapse.core.errors import (
    InvalidValueError,
    LapseError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from lapse.store.options import ConnectionOptions

T = TypeVar("T")

Taken: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

APPLICATION: Final = "lapse"

NOT_NOW: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock, serialisation
    asyncpg.ReadOnlySQLTransactionError,  # a standby, in the middle of a failover
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)
"""Errors of an outage: the server did not do the work, or did not say whether it did."""

_UNDONE: Final = (
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.QueryCanceledError,
)
"""Those errors of an outage with which the server says that nothing was done."""

CONNECTING: Final = (*NOT_NOW, asyncpg.PostgresError, ValueError)
"""Errors of a connection that is not made: of an outage, the server's refusal, or a wrong URL."""

_FIRST_PAUSE: Final = timedelta(milliseconds=50)


class Connections:
    """A pool of connections for each event loop that asks for one."""

    def __init__(self, url: str, options: ConnectionOptions) -> None:
        self._dsn = plain_url(url)
        self.place = shown_url(url)
        self._options = options
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[asyncpg.Pool]] = (
            WeakKeyDictionary()
        )
        self._closed = False

    async def connect(self) -> asyncpg.Connection:
        """Return a connection outside any pool.

        Raises:
            StoreUnavailableError: the server does not answer, or does not let Lapse in.
            InvalidValueError: the driver cannot read the URL.
        """
        try:
            return await asyncpg.connect(self._dsn, **self._connect_options())
        except CONNECTING as error:
            raise not_connected(error) from None

    async def read(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement that changes nothing, and return its rows; it repeats as `write` does.

        Raises:
            StoreUnavailableError: the server does not answer.
        """
        rows, _ = await self._repeat(
            lambda taken: taken.fetch(sql, *arguments), StoreUnavailableError
        )
        return rows

    async def write(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement and return its rows: one round trip, one transaction.

        While the server does not answer, the statement is repeated, for as long as `patience`
        says. It must be safe to repeat: it may never be known whether the first attempt was
        carried out.

        Raises:
            StoreUnavailableError: the statement was not carried out.
            OutcomeUnknownError: the statement may have been carried out.
        """
        rows, _ = await self.attempt(sql, *arguments)
        return rows

    async def attempt(self, sql: str, *arguments: Any) -> tuple[list[asyncpg.Record], bool]:
        """Run one statement as `write` does, and return its rows and whether they are in doubt.

        They are in doubt if an earlier attempt broke off and may have been carried out: what the
        repeated statement finds may be the work of that attempt.
        """
        return await self._repeat(lambda taken: taken.fetch(sql, *arguments), OutcomeUnknownError)

    async def transact(self, work: Callable[[Taken], Awaitable[T]]) -> T:
        """Run several statements as one transaction; it repeats and raises as `write` does."""

        async def run(taken: Taken) -> T:
            async with taken.transaction():
                return await work(taken)

        result, _ = await self._repeat(run, OutcomeUnknownError)
        return result

    async def close(self) -> None:
        """Close this event loop's pool for good, and drop the pools of other loops."""
        self._closed = True
        own = self._pools.pop(asyncio.get_running_loop(), None)
        for other in self._pools.values():
            if other.done() and not other.cancelled() and other.exception() is None:
                other.result().terminate()
        if own is None:
            return
        pool = await own
        try:
            await asyncio.wait_for(pool.close(), self._options.connect_timeout.total_seconds())
        except TimeoutError:
            pool.terminate()

    async def _repeat(
        self, work: Callable[[Taken], Awaitable[T]], doubt: type[StoreUnavailableError]
    ) -> tuple[T, bool]:
        """Do work on a connection of the pool, again after each outage, until patience ends.

        Return its result, and whether an earlier attempt may have been carried out.
        """
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        end = time.monotonic() + self._options.patience.total_seconds()
        pause = _FIRST_PAUSE.total_seconds()
        in_doubt = False
        while True:
            begun = False
            try:
                pool = await self._pool()
                async with pool.acquire(
                    timeout=self._options.connect_timeout.total_seconds()
                ) as taken:
                    begun = True
                    return await work(taken), in_doubt
            except CONNECTING as error:
                if not _is_outage(error):
                    if begun:
                        raise
                    raise not_connected(error) from None
                in_doubt |= begun and not isinstance(error, _UNDONE)
                if time.monotonic() + pause > end:
                    raise unavailable(
                        error, doubt if in_doubt else StoreUnavailableError
                    ) from error
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause *= 2

    async def _pool(self) -> asyncpg.Pool:
        loop = asyncio.get_running_loop()
        making = self._pools.get(loop)
        if making is None:
            making = self._pools[loop] = asyncio.create_task(self._make_pool())
        return making.result() if making.done() else await asyncio.shield(making)

    async def _make_pool(self) -> asyncpg.Pool:
        """Return a pool, which connects only when a connection is needed."""
        return await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._options.pool_size,
            reset=_leave,
            **self._connect_options(),
        )

    def _connect_options(self) -> dict[str, Any]:
        return {
            "timeout": self._options.connect_timeout.total_seconds(),
            "command_timeout": self._options.statement_timeout.total_seconds(),
            "statement_cache_size": self._options.statement_cache,
            "server_settings": {"application_name": APPLICATION},
        }


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


def shown_url(url: str) -> str:
    """Return a URL without its user, its password and its query, for messages."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def _is_outage(error: BaseException) -> bool:
    """Return whether an error is one of an outage; the driver's ValueErrors are of an argument."""
    return isinstance(error, NOT_NOW) and not isinstance(error, ValueError)


def not_connected(error: BaseException) -> LapseError:
    """Return the error that says why a connection was not made.

    It does not quote the driver, whose words may hold a password, nor the server, whose words hold
    the user and the database.
    """
    if _is_outage(error):
        return unavailable(error)
    kind = type(error).__name__
    if isinstance(error, ValueError):
        return InvalidValueError("store URL", f"is none that the driver can read ({kind})")
    return StoreUnavailableError(
        f"PostgreSQL: does not let Lapse in ({kind}); check the user, the password, the database "
        "and pg_hba.conf"
    )


def unavailable(
    error: BaseException, kind: type[StoreUnavailableError] = StoreUnavailableError
) -> StoreUnavailableError:
    """Return the error that says the server does not answer; it never holds the URL."""
    return kind(f"PostgreSQL: {str(error) or type(error).__name__}")


async def _leave(_connection: asyncpg.Connection) -> None:
    """Reset nothing: Lapse's statements leave no state behind, and a reset is a round trip."""
