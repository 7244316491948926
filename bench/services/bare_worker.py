"""The floor on PostgreSQL: rows of a lobby's size on the bare asyncpg driver."""

from __future__ import annotations

import gc
import itertools
import uuid
from datetime import UTC, datetime, timedelta

import asyncpg

from bench.support.children import Answer, Request, answer_requests, freeze
from bench.support.figures import closed_loop
from bench.support.peers import postgres_durability
from lapse.store.options import ConnectionOptions

_TABLE = """
CREATE TABLE lobby (
  app_name VARCHAR(128), user_id VARCHAR(128), session_id VARCHAR(128), status TEXT,
  created_at TIMESTAMPTZ, ttl INTERVAL, expires_at TIMESTAMPTZ, metadata JSONB, state JSONB,
  PRIMARY KEY (app_name, user_id, session_id)
)
"""
_INSERT = "INSERT INTO lobby VALUES ('bench', $1, $2, 'waiting', $3, $4, $5, $6, '{}')"
_SELECT = """
SELECT state, expires_at, metadata FROM lobby
WHERE app_name = 'bench' AND user_id = $1 AND session_id = $2
"""
_METADATA = '{"kind": "canonical-session", "backend_created": true}'
_TTL = timedelta(minutes=30)


class Floor:
    """Rows put in and got by key, each in a transaction of its own.

    Its pool is as large as Lapse's is by default, and resets nothing either.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._users = itertools.count()
        self._rows: list[tuple[str, str]] = []

    @classmethod
    async def open(cls, url: str) -> Floor:
        connections = ConnectionOptions().pool_size
        pool = await asyncpg.create_pool(
            url, min_size=connections, max_size=connections, reset=_leave
        )
        await pool.execute(_TABLE)
        return cls(pool)

    async def create_session(self, _caller: int, _turn: int) -> bool:
        key, now = (f"user-{next(self._users)}", str(uuid.uuid4())), datetime.now(UTC)
        await self._pool.execute(_INSERT, *key, now, _TTL, now + _TTL, _METADATA)
        if len(self._rows) < 32:
            self._rows.append(key)
        return True

    async def get_empty(self, caller: int, turn: int) -> bool:
        key = self._rows[(caller + turn) % len(self._rows)]
        assert await self._pool.fetchrow(_SELECT, *key) is not None
        return True

    async def close(self) -> None:
        await self._pool.close()


async def _leave(_connection: asyncpg.Connection) -> None:
    """Reset nothing: there is no session state."""


class Worker:
    """Answers the requests open, measure and close."""

    def __init__(self) -> None:
        self._floor: Floor | None = None

    async def handle(self, request: Request) -> Answer:
        match request["do"]:
            case "open":
                self._floor = await Floor.open(request["url"])
                freeze()
                return {"durability": await postgres_durability(request["url"])}
            case "measure":
                operation = getattr(self._floor, request["operation"])
                gc.collect()
                sample = await closed_loop(
                    operation, callers=request["callers"], seconds=request["seconds"]
                )
                return sample.as_json()
            case _:
                assert self._floor is not None
                await self._floor.close()
                return {}


if __name__ == "__main__":
    answer_requests(Worker().handle)
