"""The floor: rows of a lobby's size on the bare sqlite3 driver, WAL and synchronous=FULL."""

from __future__ import annotations

import sqlite3
import time
import uuid

from bench.support.children import Answer, Request, answer_requests
from bench.support.peers import file_of

_TABLE = """
CREATE TABLE lobby (
  app_name TEXT, user_id TEXT, session_id TEXT, status TEXT, created_at INTEGER, ttl INTEGER,
  expires_at INTEGER, metadata TEXT, state TEXT, PRIMARY KEY (app_name, user_id, session_id)
)
"""
_INSERT = "INSERT INTO lobby VALUES ('bench', ?, ?, 'waiting', ?, 1800000000, ?, ?, '{}')"
_METADATA = '{"kind": "canonical-session", "backend_created": true}'


async def handle(request: Request) -> Answer:
    """Insert rows for a time, so many in each transaction, and return the rate of rows."""
    connection = sqlite3.connect(file_of(request["url"]), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(_TABLE)
    done, cpu, began = 0, time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) < began + request["seconds"]:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(request["rows"]):
            moment = int(now * 1e6)
            row = (f"user-{done}", str(uuid.uuid4()), moment, moment + 1_800_000_000, _METADATA)
            connection.execute(_INSERT, row)
            done += 1
        connection.execute("COMMIT")
    took, used = time.perf_counter() - began, time.process_time() - cpu
    connection.close()
    return {"rate": done / took, "cpu": used / done}


if __name__ == "__main__":
    answer_requests(handle)
