"""One suite for every store: a test that asks for `store` runs once on each.

A test that also asks for `stock` or `reopen` needs a store that can be opened twice and runs on
those only that have one. A module or a folder with a `store_url` of its own
has stores there.
"""

from contextlib import asynccontextmanager

import pytest

from backends import BACKENDS, PLAIN
from lapse.core.lifecycle import Rules
from parts import store_with_parts

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}

PLAIN_CORE = {"test_store_races", "test_idempotency_store", "test_artifacts_uploads"}
"""The modules that `make test` runs on PLAIN, too."""

PLAIN_FOLDERS = {"store", "idempotency", "artifacts", "quotas", "notices", "sweep", "runs", "model"}
"""The folders whose other tests on every store run on PLAIN with those that take long."""


def pytest_generate_tests(metafunc):
    if "backend" not in metafunc.fixturenames:
        return
    alone = {"stock", "reopen"}.isdisjoint(metafunc.fixturenames)
    found = [backend for backend in BACKENDS if alone or backend.shared]
    if metafunc.module.__name__ in PLAIN_CORE:
        found.append(PLAIN)
    elif metafunc.definition.path.parent.name in PLAIN_FOLDERS:
        found.append(pytest.param(PLAIN, marks=pytest.mark.long))
    metafunc.parametrize("backend", found, ids=lambda backend: backend.name)


@pytest.fixture
def store_url(backend, tmp_path):
    """The URL of an empty store."""
    with backend.empty(tmp_path) as url:
        yield url


@pytest.fixture
async def open_store(store_url):
    """A function that opens a store with given rules; all are closed after the test."""
    stores = []

    async def open_one(**rules):
        store = store_with_parts(store_url, Rules(**rules))
        stores.append(store)
        await store.open()
        return store

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture
def reopen(open_store):
    """Opens the same database once more, as another process would."""
    return open_store


@pytest.fixture
async def store(open_store):
    return await open_store()


@pytest.fixture
async def two_stores(backend, open_store):
    """Two stores on one database; the same store twice where a database cannot be shared."""
    one = await open_store()
    return one, await open_store() if backend.shared else one


@asynccontextmanager
async def stock_on(url):
    """Yield ADK's own service on a database, with a method that reads its tables."""
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from sqlalchemy import text

    class Stock(DatabaseSessionService):
        async def rows(self, statement, **params):
            async with self.db_engine.begin() as connection:
                result = await connection.execute(text(statement), params)
                return list(result.mappings()) if result.returns_rows else []

    scheme, _, rest = url.partition("://")
    async with Stock(f"{DRIVERS[scheme]}://{rest}") as service:
        yield service


@pytest.fixture
async def stock(store_url):
    """ADK's own service on the same database."""
    async with stock_on(store_url) as service:
        yield service
