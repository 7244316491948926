"""One suite for every store: a test that asks for `store` runs once on each.

A test that also asks for `stock` or `reopen` needs a place that can be opened twice and runs on
those only that have one. A module or a folder with a `place` of its own has stores there.
"""

import pytest

from backends import BACKENDS
from lapse.core.lifecycle import Rules
from parts import store_with_parts

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def pytest_generate_tests(metafunc):
    if "backend" not in metafunc.fixturenames:
        return
    alone = {"stock", "reopen"}.isdisjoint(metafunc.fixturenames)
    found = [backend for backend in BACKENDS if alone or backend.shared]
    metafunc.parametrize("backend", found, ids=lambda backend: backend.name)


@pytest.fixture
def place(backend, tmp_path):
    """The URL of an empty store."""
    with backend.empty(tmp_path) as url:
        yield url


@pytest.fixture
async def open_store(place):
    """Opens a store with the rules given; all are closed in the end."""
    stores = []

    async def open_one(**rules):
        store = store_with_parts(place, Rules(**rules))
        stores.append(store)
        await store.open()
        return store

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture
def reopen(open_store):
    """Opens one more store on the same place, as another process would."""
    return open_store


@pytest.fixture
async def store(open_store):
    return await open_store()


@pytest.fixture
async def pair(backend, open_store):
    """Two replicas on one place; the same one twice where a place cannot be shared."""
    one = await open_store()
    return one, await open_store() if backend.shared else one


@pytest.fixture
async def stock(place):
    """ADK's own service on the same place, and a look into its tables."""
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from sqlalchemy import text

    class Stock(DatabaseSessionService):
        async def rows(self, statement, **params):
            async with self.db_engine.begin() as connection:
                result = await connection.execute(text(statement), params)
                return list(result.mappings()) if result.returns_rows else []

    scheme, _, rest = place.partition("://")
    async with Stock(f"{DRIVERS[scheme]}://{rest}") as service:
        yield service
