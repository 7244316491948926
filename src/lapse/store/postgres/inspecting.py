"""How a PostgreSQL store is, before anybody opens it; see `lapse.check.store`."""

from __future__ import annotations

from lapse.check.store import MOST_COUNTED, Inspection
from lapse.store.postgres.call import Call
from lapse.store.postgres.schema import look, pending_script
from lapse.store.schemas import missing_indexes, newest_version


async def inspect(call: Call) -> Inspection:
    """Look at the store as it is, and change nothing; see `Inspected.inspect`."""
    connection = await call.connections.connect()
    try:
        await pending_script(connection, call.connections.place)
        version = (await look(connection)).lapse_version
        newest = newest_version("postgres")
        if not version:
            return Inspection(await connection.fetchval("SELECT clock_timestamp()"), 0, newest)
        found = await connection.fetch(*call.bound("indexes"))
        sessions = await connection.fetchrow(*call.bound("inspect_sessions", most=MOST_COUNTED))
        assert sessions is not None
        return Inspection(
            version=version,
            newest=newest,
            missing_indexes=missing_indexes(
                "postgres", version, {row["name"] for row in found if row["valid"]}
            ),
            **sessions,
        )
    finally:
        await connection.close()
