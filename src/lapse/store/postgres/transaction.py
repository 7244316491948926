"""A transaction that sends nothing more on a connection whose state is unknown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from lapse.core.errors import LapseError


@asynccontextmanager
async def transaction(connection: asyncpg.Connection, **options: Any) -> AsyncIterator[None]:
    """Enter a transaction, or inside one a savepoint; `options` are those of asyncpg's.

    It is rolled back after an error that leaves the connection sound: one of the server's or of
    Lapse's. After any other, such as a cancellation in the middle of a statement, whoever has lent
    the connection must close it, which ends the transaction, too. asyncpg's own context asks for a
    rollback then, and waits for the given-up statement first: without end if the server is silent.
    """
    begun = connection.transaction(**options)
    await begun.start()
    try:
        yield
    except (asyncpg.PostgresError, LapseError):
        await begun.rollback()
        raise
    await begun.commit()
