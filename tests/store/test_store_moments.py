"""What is due is found by its index on PostgreSQL, whose clock moves from row to row."""

import re

import asyncpg
import pytest

from lapse.store.operation import Dialect
from lapse.store.statements import read_migrations, read_statements
from postgres import database

STATEMENTS = read_statements(Dialect.POSTGRES)
SEARCHES = {
    "due_for_look": "check_at",
    "forget_keys": "first_sent_at",
    "forget_runs": "ended_at",
    "overdue": "lease_until",
}
VALUES = {":now": "NULL::timestamptz", ":kept": "interval '1 day'", ":limit": "1"}


@pytest.mark.parametrize("name", SEARCHES)
async def test_a_search_by_a_moment_reads_its_index_up_to_that_moment(name):
    """Seen to fail with a clock that is asked for each row: the index is read to its end."""
    statement = re.sub(r":\w+", lambda found: VALUES[found.group()], STATEMENTS[name])
    with database() as url:
        connection = await asyncpg.connect(url)
        await connection.execute("SET enable_seqscan = off")
        plan = "\n".join(line for (line,) in await connection.fetch(f"EXPLAIN {statement}"))
        await connection.close()
    assert re.search(rf"Index Cond: .*\({SEARCHES[name]} <", plan), plan


def test_no_other_search_asks_the_clock_for_each_row():
    """One row by its key may: it is asked again after it was locked."""
    schema = "".join(read_migrations(Dialect.POSTGRES).values())
    indexed = re.findall(r"CREATE INDEX \w+\s+ON (\w+) \((\w+)", schema)
    assert set(SEARCHES.values()) <= {column for _, column in indexed}
    for name, statement in STATEMENTS.items():
        asked = re.findall(r"(\w+) [<>]=? coalesce\(:now, clock_timestamp\(\)\)", statement)
        by_key = re.search(r"(session_id|user_id|idempotency_key) = [:\w]", statement)
        found = [one for table, one in indexed if one in asked and table in statement]
        assert by_key or not found, name
