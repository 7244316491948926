"""Many sessions in no time: copies of one, as stock ADK's tables have them."""

from sqlalchemy import text

_COLUMNS = {
    "sessions": ("id", "app_name, user_id, state, create_time, update_time"),
    "events": ("session_id", "app_name, user_id, id, invocation_id, timestamp, event_data"),
}


async def copied(stock, number, *, first=0, of="s1"):
    """Copy a session of ADK's tables with its events, up to copy-<number - 1>, without a record."""
    names = [{"name": f"copy-{place}", "of": of} for place in range(first, number)]
    async with stock.db_engine.begin() as connection:
        for table, (name, columns) in _COLUMNS.items():
            copy = (
                f"INSERT INTO {table} ({name}, {columns}) "
                f"SELECT CAST(:name AS VARCHAR(128)), {columns} FROM {table} WHERE {name} = :of"
            )
            await connection.execute(text(copy), names)
