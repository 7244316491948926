"""How to reach a store that is a server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How to reach a store that is a server.

    Attributes:
        pool_size: connections per event loop, at most.
        statement_timeout: for one statement, the wait for its locks included.
        connect_timeout: for a connection to be made, or to become free.
        statement_cache: prepared statements kept per connection; 0 behind a pooler that
            shares connections between transactions and does not track them.
        patience: for how long an operation is repeated while the server does not answer.
    """

    pool_size: int = 10
    statement_timeout: timedelta = timedelta(seconds=10)
    connect_timeout: timedelta = timedelta(seconds=5)
    statement_cache: int = 100
    patience: timedelta = timedelta(seconds=2)
