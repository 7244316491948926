"""A server adopts old sessions round after round, if the settings say so."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from google.adk.sessions.database_session_service import DatabaseSessionService

from lapse.adoption.adopter import Adopter
from lapse.adoption.settings import Adopt
from lapse.core import background
from lapse.core.background import Background
from lapse.core.errors import StoreUnavailableError
from lapse.core.feed import Feed
from parts import store_with_parts
from serving import AGENTS, USER, eventually, serving
from stock_databases import place_of, shift_everything, words

pytestmark = pytest.mark.long

TTL = timedelta(minutes=30)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_scope_new_adopts_sessions_made_after_lapse_came_and_scope_all_every_session(
    kind, tmp_path
):
    with place_of(kind, tmp_path) as (url, opened):
        seen = []
        feed = Feed()
        feed.subscribe(lambda change: seen.append(change.record.key.session_id))
        async with opened() as stock:
            await stock.create_session(app_name="shop", user_id="ada", session_id="before")
            shift_everything(url, back=timedelta(days=2), first_messages=timedelta(0))
            store = store_with_parts(url)
            await store.open()
            await stock.create_session(app_name="shop", user_id="ada", session_id="young")
        for scope, ttl, expected in (
            (Adopt.NEW, TTL, []),
            (Adopt.NEW, timedelta(milliseconds=1), ["young"]),
            (Adopt.ALL, TTL, ["young", "before"]),
        ):
            adopter = Adopter(store, feed, scope=scope, ttl=ttl, round_pause=TTL)
            assert await adopter.step() == TTL
            assert seen == expected
        await store.close()


async def test_a_background_loop_outlives_faults_and_logs_their_beginning_and_end(
    caplog, monkeypatch
):
    taken = []

    async def step():
        taken.append(len(taken))
        if len(taken) in {1, 2}:
            raise StoreUnavailableError("away")
        return timedelta(0) if len(taken) == 3 else TTL

    monkeypatch.setattr(background, "_FIRST_RETRY", timedelta(milliseconds=1))
    async with Background("adoption", step), asyncio.timeout(10):
        while len(taken) < 4:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0.001)
    assert caplog.text.count("adoption cannot work and will keep trying: away") == 1
    assert caplog.text.count("adoption works again, after 2 failures") == 1


async def test_a_real_server_adopts_the_empty_sessions_of_stock_adk(tmp_path):
    file = tmp_path / "lapse.db"
    parrot = {"app_name": "parrot", "user_id": USER}
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{file}") as stock:
        for name in ("empty", "other", "used"):
            session = await stock.create_session(**parrot, session_id=name)
        await stock.append_event(session, words())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE sessions SET create_time = '2025-01-01 00:00:00.000000'")
    with serving(tmp_path, str(AGENTS), LAPSE_ADOPT="all") as server:
        eventually(lambda: server.lifecycle("empty")["status"] == "expired")
        assert server.lifecycle("used")["status"] == "used"
        assert server.run("empty").is_success, "its owner can have it back"
        assert server.lifecycle("empty")["status"] == "used"
        assert server.metric('lapse_sessions_adopted_total{app="parrot"}') == 2
