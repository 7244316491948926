"""First messages of stock ADK against adoption, on PostgreSQL; `race.py` runs thousands."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from google.adk.sessions.database_session_service import DatabaseSessionService
from race import race

import postgres
from lapse.adoption.store import Batch, Selection
from parts import store_with_parts
from stock_databases import words

pytestmark = pytest.mark.long


async def test_a_message_that_stock_adk_acknowledges_survives_adoption():
    """Tried with a break: without the look under the lock (`race.py --wrong`) it fails."""
    with postgres.database() as url:
        ended = await race(url, 160, seed=5)
    assert set(ended) == {"stored", "told that it is gone"}


async def test_a_session_that_a_writer_has_locked_is_skipped():
    """Tried with a break: without SKIP LOCKED it waits for the writer."""
    with postgres.database() as url:
        store = store_with_parts(url)
        stock_url = url.replace("postgresql://", "postgresql+asyncpg://")
        async with DatabaseSessionService(stock_url) as stock:
            for name in ("free", "held"):
                await stock.create_session(app_name="app", user_id="ann", session_id=name)
            async with stock.db_engine.begin() as writer:
                await writer.exec_driver_sql("SELECT 1 FROM sessions WHERE id = 'held' FOR UPDATE")
                batch = Batch("r", Selection(), timedelta(minutes=30), None, 10)
                adopted = await asyncio.wait_for(store.adopt(batch), 5)
        await store.close()
    assert [change.record.key.session_id for change in adopted.changes] == ["free"]


async def test_a_message_acknowledged_on_sqlite_survives_adoption(tmp_path):
    """Stock ADK reads the session before its transaction begins: its INSERT must fail then."""
    store = store_with_parts(f"sqlite:///{tmp_path}/lapse.db")
    await store.open()
    batch = Batch("r", Selection(), timedelta(minutes=30), None, 5)
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{tmp_path}/lapse.db") as stock:
        names = [f"s{number:02}" for number in range(30)]
        sessions = [
            await stock.create_session(app_name="app", user_id="ann", session_id=name)
            for name in names
        ]

        first = await store.adopt(batch)

        async def adopt() -> None:
            after = first.value.last
            for _ in names[::5]:
                part = await store.adopt(replace(batch, after=after))
                after = part.value.last
                await asyncio.sleep(0)

        adopting = asyncio.create_task(adopt())
        told = await asyncio.gather(
            *(stock.append_event(session, words()) for session in reversed(sessions)),
            return_exceptions=True,
        )
        await adopting
        for name, outcome in zip(reversed(names), told, strict=True):
            found = await stock.get_session(app_name="app", user_id="ann", session_id=name)
            if isinstance(outcome, Exception):
                assert found is None or not found.events, (name, outcome)
            else:
                assert found is not None, name
                assert len(found.events) == 1, name
    await store.close()
    assert sum(isinstance(outcome, Exception) for outcome in told) >= len(first.changes) == 5
