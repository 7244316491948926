"""`Lapse` as a context manager: it works inside its block and has stopped after it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from fastapi import FastAPI
from google.adk.events.event import Event
from google.genai import types

from lapse import Lapse, Settings
from lapse.core.errors import InvalidValueError, SettingsError
from lapse.core.lifecycle import ChangeKind
from lapse.store.options import PostgresFeature
from lapse.sweep.sweeper import LONGEST_SLEEP, SHORT_SLEEP
from served import Served

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself


async def created(service, **more):
    return await service.create_session(app_name="app", user_id="ann", **more)


async def test_a_running_lapse_sweeps_and_leaves_used_sessions(tmp_path):
    expired, seen = asyncio.Event(), []

    def hear(change):
        seen.append(change.kind)
        if change.kind is ChangeKind.EXPIRED:
            expired.set()

    async with Lapse(f"sqlite:///{tmp_path}/lapse.db") as lapse:
        lapse.feed.subscribe(hear)
        used = await created(lapse.sessions, ttl_minutes=10)
        words = types.Content(role="user", parts=[types.Part(text="hi")])
        await lapse.sessions.append_event(used, Event(author="user", content=words))
        await created(lapse.sessions, ttl_minutes=0.001)
        async with asyncio.timeout(30):
            await expired.wait()
        assert lapse.sweeper.is_alive
    assert not lapse.sweeper.is_alive
    assert seen.count(ChangeKind.EXPIRED) == 1


async def test_the_url_of_the_store_wins_over_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(store_url="sqlite:///other.db", sweeper=False)
    async with Lapse("sqlite:///mine.db", settings) as lapse:
        await created(lapse.sessions)
        assert not lapse.sweeper.is_alive
    assert [file.name for file in tmp_path.glob("*.db")] == ["mine.db"]


@pytest.mark.parametrize(("lacks", "pause"), [((), LONGEST_SLEEP), (PostgresFeature, SHORT_SLEEP)])
def test_a_sweeper_that_is_not_told_of_others_deadlines_looks_more_often(lacks, pause):
    settings = Settings(store_url="postgresql://db/lapse", postgres_without=frozenset(lacks))
    assert Lapse(settings=settings).sweeper.longest_sleep == pause


async def test_a_lapse_cannot_be_entered_twice_at_once(tmp_path):
    async with Lapse(f"sqlite:///{tmp_path}/lapse.db") as lapse:
        with pytest.raises(RuntimeError, match="runs already"):
            await lapse.__aenter__()
        await created(lapse.sessions)


def test_wrong_settings_and_urls_are_refused_at_once():
    with pytest.raises(InvalidValueError, match="store URL"):
        Lapse("mysql://somewhere/db")
    with pytest.raises(SettingsError, match="LAPSE_TTL_POLICY"):
        Lapse(settings=Settings(ttl_policy="adaptive", horizon=timedelta(0)))


def test_the_lifespan_of_an_application_starts_and_stops_its_lapse(tmp_path):
    lapse = Lapse(f"sqlite:///{tmp_path}/lapse.db")
    app = FastAPI()
    lapse.mount(app, apps=["app"])
    with Served(app) as served:
        assert served.client.get("/readyz").json() == {"status": "ready"}
        assert lapse.sweeper.is_alive
    assert not lapse.sweeper.is_alive


def test_an_application_without_a_folder_of_agents_is_the_bundled_demo(tmp_path):
    with Served(Lapse(f"sqlite:///{tmp_path}/lapse.db").app()) as served:
        assert "concierge" in served.client.get("/list-apps").json()
        made = served.client.post("/apps/concierge/users/ann/sessions", json={})
        assert made.status_code == 200
        path = f"/apps/concierge/users/ann/sessions/{made.json()['id']}/lifecycle"
        assert served.client.get(path).json()["status"] == "waiting"
        assert served.client.get("/").status_code == 200


async def test_artifacts_are_noted_only_if_the_server_deletes_them(tmp_path):
    store_url = f"sqlite:///{tmp_path}/lapse.db"
    assert not Lapse(store_url).sessions.store.rules.artifacts
    lapse = Lapse(store_url)
    lapse.app()
    assert lapse.store.rules.artifacts
    assert Lapse(store_url, notes_artifacts=True).store.rules.artifacts


@pytest.mark.parametrize("turns", [3])
def test_the_sweeper_and_the_policy_start_again_on_a_new_event_loop(tmp_path, turns):
    """Seen to fail with an event of the sweeper that was bound to its first loop."""
    lapse = Lapse(f"sqlite:///{tmp_path}/lapse.db")

    async def turn():
        await lapse.sweeper.start()
        await lapse.policy.start()
        lapse.feed.publish([])
        async with asyncio.timeout(30):
            while lapse.sweeper._work._run.wakes_at == float("inf"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return lapse.sweeper.is_alive

    for _ in range(turns):
        assert asyncio.run(turn())
    asyncio.run(lapse.sweeper.stop())
    assert not lapse.sweeper.is_alive
