"""A database of version 0 becomes one of version 1 that reads the same, and there is a way back."""

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai.types import Content, Part

import postgres
from lapse.adk.service import LapseSessionService
from parts import store_with_parts
from stock_databases import place_of
from v0_databases import (
    BEGAN,
    SESSIONS,
    TABLES,
    content,
    dump,
    execute,
    query,
    read_all,
    stock,
    v0_database,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # what ADK calls itself
]


def of_service(url, sessions=SESSIONS):
    """Return what the newest ADK reads of each session, as JSON."""

    async def read():
        async with stock(url) as service:
            return await read_all(service, sessions)

    return as_json(asyncio.run(read()))


def as_json(sessions):
    return [session.model_dump(mode="json", exclude_none=True) for session in sessions]


def of_lapse(url):
    async def read():
        store = store_with_parts(url)
        service = LapseSessionService(store)
        try:
            return await read_all(service)
        finally:
            await store.close()

    return as_json(asyncio.run(read()))


def ok(done):
    assert done.status == 0, done.err
    return done.out


def test_each_session_reads_as_before_with_adk_and_with_lapse(lapse, old):
    """Seen to fail with events whose actions are left out."""
    before = of_service(old)
    assert [len(session["events"]) for session in before] == [0, 0, 14, 14, 14]
    rows = content(old)
    said = ok(lapse("migrate", "--from-v0", "--yes"))
    assert "events: 42 rows, checksum" in said
    assert "--undo-v0" in said
    assert of_service(old) == before
    assert of_lapse(old) == before
    assert content(old, "lapse_v0_") == rows
    again = ok(lapse("migrate", "--from-v0", "--yes"))
    assert "nothing to migrate" in again
    assert ok(lapse("check"))


def test_nothing_of_an_event_is_lost(lapse, old):
    """The rows themselves, beside what the services make of them."""
    ok(lapse("migrate", "--from-v0", "--yes", "--quiet"))
    events = next(table for table in dump("sqlite")["tables"] if table["name"] == "events")
    at = {name: number for number, name in enumerate(events["columns"])}
    found = {row[0]: row[1:] for row in query(old, "SELECT id, timestamp, event_data FROM events")}
    assert len(found) == len(events["rows"]) == 42
    for row in events["rows"]:
        when, data = found[row[at["id"]]]
        data = json.loads(data)
        number = int(row[at["id"]].split("-")[1])
        assert data["timestamp"] == pytest.approx(BEGAN + number * 0.5, abs=1e-6)
        moment = when if isinstance(when, datetime) else datetime.fromisoformat(when)
        assert moment.replace(tzinfo=UTC).timestamp() == data["timestamp"]
        assert (data["id"], data["invocation_id"]) == (row[at["id"]], row[at["invocation_id"]])
        for name in ("author", "branch", "error_code", "error_message", "interrupted"):
            assert data.get(name) == row[at[name]]
        tools = set(json.loads(row[at["long_running_tool_ids_json"]] or "[]"))
        assert set(data["long_running_tool_ids"]) == tools
        for name in ("content", "usage_metadata", "custom_metadata", "input_transcription"):
            assert data.get(name) == json.loads(row[at[name]] or "null")
    (agent,) = [
        state
        for event_id, (_, data) in found.items()
        if (state := json.loads(data)["actions"].get("agent_state")) and "zoo" in event_id
    ]
    assert agent["amount"] == "10.50"
    assert agent["big"] == 2**70
    assert agent["pair"] == [1, "two"]


SHAPE = (
    """SELECT attrelid::regclass::text, attname, atttypid::regtype::text, atttypmod, attnotnull
    FROM pg_attribute WHERE attrelid = ANY({mine}) AND attnum > 0
    ORDER BY attrelid::regclass::text, attnum""",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid = ANY({mine}) ORDER BY 1, 2""",
    """SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid = ANY({mine}) ORDER BY 1, 2""",
)


def shape(url):
    """Return how ADK's tables are made, but for the spelling."""
    if url.startswith("postgres"):
        mine = "'{sessions,events,app_states,user_states,adk_internal_metadata}'::regclass[]"
        return [postgres.rows(url, asked.format(mine=mine)) for asked in SHAPE] + [
            postgres.rows(url, "SELECT key, value FROM adk_internal_metadata")
        ]
    found = [query(url, "SELECT key, value FROM adk_internal_metadata")]
    for table in (*TABLES, "adk_internal_metadata"):
        found.append(query(url, f"PRAGMA table_xinfo({table})"))
        found.append(query(url, f"PRAGMA foreign_key_list({table})"))
        found += [
            (index[1:], query(url, f"PRAGMA index_xinfo({index[1]})"))
            for index in query(url, f"PRAGMA index_list({table})")
        ]
    return found


def test_the_tables_are_made_as_adk_makes_them(lapse, old, kind, tmp_path):
    """Seen to fail with an index that keeps the name of the table that it was made for."""
    ok(lapse("migrate", "--from-v0", "--yes"))
    (tmp_path / "new").mkdir()
    with place_of(kind, tmp_path / "new") as (url, opened):

        async def make():
            async with opened() as service:
                await service.prepare_tables()

        asyncio.run(make())
        assert shape(old) == shape(url)


def test_conversations_go_on(lapse, old):
    ok(lapse("migrate", "--from-v0", "--yes"))
    app, user, session_id = SESSIONS[2]

    async def go_on():
        store = store_with_parts(old)
        for service in (stock(old), LapseSessionService(store)):
            found = await service.get_session(
                app_name=app,
                user_id=user,
                session_id=session_id,
                config=GetSessionConfig(num_recent_events=1),
            )
            event = Event(author="user", content=Content(role="user", parts=[Part(text="more")]))
            await service.append_event(found, event)
            await service.delete_session(app_name="zoo", user_id="ada", session_id="one")
            await service.close()
        await store.close()

    asyncio.run(go_on())
    assert query(old, "SELECT count(*) FROM events") == [(42 - 14 + 2,)]
    assert query(old, "SELECT count(*) FROM lapse_v0_events") == [(42,)]
    assert query(old, "SELECT count(*) FROM lapse_v0_sessions") == [(5,)]


def test_an_undo_puts_all_back_as_it_was(lapse, old):
    rows, before = content(old), of_service(old)
    ok(lapse("migrate", "--from-v0", "--yes"))
    said = ok(lapse("migrate", "--undo-v0", "--yes"))
    assert said.endswith("the tables of version 0 are back\n")
    assert content(old) == rows
    assert of_service(old) == before
    assert "version 0" in lapse("sweep").err
    ok(lapse("migrate", "--from-v0", "--yes"))
    assert of_lapse(old) == before


def test_what_came_since_is_kept_by_an_undo(lapse, old):
    """Seen to fail with an undo that drops what was written since."""
    rows = content(old)
    ok(lapse("migrate", "--from-v0", "--yes"))

    async def use():
        store = store_with_parts(old)
        service = LapseSessionService(store)
        made = await service.create_session(app_name="shop", user_id="eve", session_id="new")
        said = Event(author="user", content=Content(role="user", parts=[Part(text="hi")]))
        await service.append_event(made, said)
        await store.close()

    asyncio.run(use())
    told = ok(lapse("migrate", "--undo-v0", "--yes"))
    assert "sessions 5 → 6 rows, events 42 → 43 rows" in told
    assert content(old) == rows
    assert query(old, "SELECT user_id FROM lapse_undone_events WHERE user_id = 'eve'") == [("eve",)]
    assert query(old, "SELECT session_id FROM lapse_undone_lobby") == [("new",)]
    ok(lapse("migrate", "--from-v0", "--yes"))
    asyncio.run(use())
    assert query(old, "SELECT count(*) FROM lapse_lobby WHERE status = 'used'") == [(1,)]
    refused = lapse("migrate", "--undo-v0", "--yes")
    assert "an earlier undo" in refused.err
    assert query(old, "SELECT count(*) FROM events") == [(43,)]


def test_the_old_tables_are_dropped_on_request(lapse, old):
    ok(lapse("migrate", "--from-v0", "--yes"))
    before = of_service(old)
    assert "dropped" in ok(lapse("migrate", "--drop-v0", "--yes"))
    assert of_service(old) == before
    for option in ("--drop-v0", "--undo-v0"):
        refused = lapse("migrate", option, "--yes")
        assert (refused.status, refused.out) == (1, "")
        assert "keeps no old tables" in refused.err


def test_an_erasure_says_that_old_tables_are_kept(lapse, old):
    """Seen to fail with an erasure that looks at the new tables alone."""
    erase = ("erase", "--user", "bob/'\"%", "--yes", "--without-artifacts")
    ok(lapse("migrate", "--from-v0", "--yes"))
    done = lapse(*erase)
    assert done.status == 3
    assert "`lapse migrate --drop-v0`" in done.err
    ok(lapse("migrate", "--drop-v0", "--yes"))
    assert "--drop-v0" not in lapse(*erase).err
    assert query(old, "SELECT count(*) FROM events") == [(28,)]


@pytest.mark.parametrize("kind", ["sqlite"])
def test_events_of_deleted_sessions_stay_in_the_old_table(lapse, old):
    """ADK 1.20 leaves them behind on SQLite, and nobody can read them."""
    execute(old, "DELETE FROM sessions WHERE app_name = 'zoo'")
    said = ok(lapse("migrate", "--from-v0", "--yes"))
    assert "14 events were left in the old table" in said
    assert query(old, "SELECT count(*) FROM events") == [(28,)]
    assert query(old, "PRAGMA foreign_key_check(events)") == []


def test_columns_that_older_versions_did_not_have_may_be_missing(lapse, old):
    later = ("custom_metadata", "usage_metadata", "citation_metadata", "input_transcription")
    execute(old, *(f"ALTER TABLE events DROP COLUMN {name}" for name in later))
    ok(lapse("migrate", "--from-v0", "--yes"))
    found = of_lapse(old)
    assert [len(session["events"]) for session in found] == [0, 0, 14, 14, 14]
    assert "usage_metadata" not in json.dumps(found)


def test_a_time_zone_is_that_of_the_servers_that_wrote(monkeypatch, capsys, tmp_path, lapse):
    """Seen to fail with a zone that is not asked for."""
    with v0_database("sqlite", tmp_path / "berlin", "berlin") as url:
        wrong = lapse(
            "migrate", "--from-v0", "--yes", "--time-zone", "Berlin/Mitte", "--store", url
        )
        assert "must be a name like Europe/Berlin" in wrong.err
        ok(lapse("migrate", "--from-v0", "--yes", "--time-zone", "Europe/Berlin", "--store", url))
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            found = connection.execute("SELECT id, event_data FROM events ORDER BY id").fetchall()
        assert len(found) == 14
        for event_id, data in found:
            number = int(event_id.split("-")[1])
            assert json.loads(data)["timestamp"] == pytest.approx(BEGAN + number * 0.5, abs=1e-6)
