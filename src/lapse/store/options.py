"""How to reach a store that is a server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from lapse.core.arguments import check_fields


class PostgresFeature(StrEnum):
    """What Lapse uses of PostgreSQL if it is there, and does otherwise if it is not."""

    LISTEN = "listen"
    ADVISORY_LOCKS = "advisory_locks"
    UNLOGGED_TABLES = "unlogged_tables"


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How to reach a store that is a server.

    Attributes:
        pool_size: the maximum of connections of one process, on all its event loops.
        statement_timeout: how long one statement may take, including its wait for locks.
        connect_timeout: how long it may take until a connection is made, or is free.
        statement_cache: how many prepared statements a connection keeps. It must be 0 behind a
            pooler that shares connections between transactions and does not track statements.
        patience: how long an operation is repeated while the server does not answer.
        without: what a server lacks that is compatible with PostgreSQL. All processes on one
            database must say the same of advisory locks, or they do not see each other's.
    """

    pool_size: int = 10
    statement_timeout: timedelta = timedelta(seconds=10)
    connect_timeout: timedelta = timedelta(seconds=5)
    statement_cache: int = 100
    patience: timedelta = timedelta(seconds=2)
    without: frozenset[PostgresFeature] = frozenset()

    def __post_init__(self) -> None:
        check_fields(self)
