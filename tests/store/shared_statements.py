"""Statements that many callers share, as tests see them, and what such statements meet."""

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import asyncpg

from backends import DUE, NO_STATE, TTL, create, key, use
from lapse.core.documents import split_state
from lapse.core.lifecycle import Rules
from lapse.core.messages import UsedBy
from lapse.store.options import ConnectionOptions
from lapse.store.postgres import combining
from parts import store_with_parts
from postgres import database

RULES = Rules(artifacts=True)
ONE = ConnectionOptions(pool_size=1)
NAMES = [f"s{number:02}" for number in range(12)]
STATE = {"plain": [1, {"two": None}], "text": "Ünï"}


@dataclass
class Batches:
    """The statements for many that were run, and what to do before and after the next one."""

    keys: list = field(default_factory=list)
    done: list = field(default_factory=list)

    async def before(self):
        """Do nothing."""

    async def after(self):
        """Do nothing."""


@asynccontextmanager
async def a_store(options=None, rules=RULES):
    with database() as url:
        store = store_with_parts(url, rules, options or ConnectionOptions())
        await store.open()
        try:
            yield url, store
        finally:
            await store.close()


@contextmanager
def nothing_is_combined():
    """Give every caller a statement of its own."""
    lanes, combining.LANES = combining.LANES, 1000
    try:
        yield
    finally:
        combining.LANES = lanes


async def together(*calls):
    """Run calls at the same time; return each result, or its error by class and text."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [(type(one), str(one)) if isinstance(one, Exception) else one for one in results]


def creates(store):
    """Return creations of every kind, and what they meet."""
    at = store.at(DUE)
    plain = {"state": split_state(STATE), "ttl": TTL, "metadata": {}}
    return [
        *(at.create(key(name), **plain) for name in NAMES[:4]),
        at.create(key("briefly"), **plain | {"ttl": TTL / 1000}, used_by=UsedBy.USER),
        at.create(key("described"), **plain | {"metadata": {"segment": "a", "n": 1}}, site="x"),
        at.create(key("elsewhere", "bob", "other"), **plain | {"state": NO_STATE}),
        *(
            at.create(key(name), **plain)
            for name in ("waits", "overdue", "expired", "used", "stock", "owed")
        ),
    ]


async def all_at_once(store):
    """Make all creations, and then some that change shared state; return what each returned."""
    found = await together(*creates(store))
    for_all = [{"app:a": 1, "b": 2}, {"user:a": 1}, {"user:b": 1, "app:a": 2}, {"app:c": 2}]
    calls = (
        create(store, key(app=f"app {number}"), state=state) for number, state in enumerate(for_all)
    )
    return found, await together(*calls)


async def before_creates(url, store):
    """Put into the database what creations meet."""
    await create(store, "waits", now=DUE)
    await create(store, "overdue")
    await create(store, "expired", now=DUE)
    await store.at(DUE).expire(key("expired"))
    await use(store, "used")
    await create(store, "owed", now=DUE)
    await store.at(DUE).delete(key("owed"))
    await create(store, "first", state={"app:x": 1, "user:y": 2})
    await ask(
        url,
        "INSERT INTO sessions VALUES ('app', 'ann', 'stock', '{}', '2029-01-01', '2029-01-01')",
    )


@asynccontextmanager
async def holding(url, statement, names):
    """Hold what a statement locks for each of some sessions, until the block ends."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("BEGIN")
        for name in names:
            await connection.execute(statement, name)
        yield
        await connection.execute("ROLLBACK")
    finally:
        connection.terminate()


async def ask(url, *statements):
    """Run statements as somebody else does."""
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
