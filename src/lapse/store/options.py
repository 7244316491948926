"""How to reach a store that is a server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from lapse.core.arguments import check_fields


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
    """

    pool_size: int = 10
    statement_timeout: timedelta = timedelta(seconds=10)
    connect_timeout: timedelta = timedelta(seconds=5)
    statement_cache: int = 100
    patience: timedelta = timedelta(seconds=2)

    def __post_init__(self) -> None:
        check_fields(self)
