"""One SQLite file, two services: Lapse's and ADK's own DatabaseSessionService."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.genai import types

from adk_builders import (
    APP,
    USER,
    create_session,
    delete_session,
    get_session,
    message_event,
    state_event,
    status_of,
    texts,
)
from adk_versions import is_before
from lapse import LapseSessionService
from lapse.adk.errors import StaleSessionError
from lapse.core.errors import NoSuchSessionError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from parts import store_with_parts

ADK_TABLES = ("adk_internal_metadata", "app_states", "events", "sessions", "user_states")
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
SECONDS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "chats.db"


@pytest.fixture
async def lapse(file):
    async with LapseSessionService(store_with_parts(f"sqlite:///{file}")) as service:
        yield service


@pytest.fixture
async def stock(file, lapse):
    """Return ADK's service on the file that Lapse made."""
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{file}") as service:
        yield service


def rows(file, query, *parameters):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query, parameters).fetchall()


def dump(file, table):
    """Return a table's rows, each value with its storage class; times of writing are cut."""
    columns = [row[1] for row in rows(file, f"PRAGMA table_info({table})")]
    expressions = [f"{column}, typeof({column})" for column in columns]
    found = rows(file, f"SELECT {', '.join(expressions)} FROM {table} ORDER BY 1, 3")
    return [tuple(zip(columns, row[::2], row[1::2], strict=True)) for row in found]


def events():
    """Return a conversation that has everything an event can bring to storage."""
    yield message_event(
        "h\u00e9llo \U0001f642",
        id="ev-1",
        timestamp=1763800000.123456,
        delta={"k": {"b": 1, "a": [None, True, 2.5]}, "app:b": None, "user:ü": "ü", "temp:t": 1},
    )
    answer = message_event(
        "Done.", author="concierge", id="ev-2", timestamp=1763800001.0, branch="a.b"
    )
    answer.long_running_tool_ids = {"z", "a"}
    answer.content.parts[0].thought_signature = b"\xfb\xff\xfe"
    answer.actions.artifact_delta = {"file.txt": 0}
    answer.custom_metadata = {"model": "scripted"}
    yield answer
    call = message_event(
        "", author="concierge", id="ev-3", timestamp=1763800002.5, invocation_id=""
    )
    call.content.parts = [
        types.Part.from_function_call(name="book", args={"guests": 4}),
        types.Part.from_bytes(data=b"\x00\x01", mime_type="image/png"),
    ]
    yield call
    yield state_event({"k": None, "last": "\u2028"}, id="ev-4", timestamp=1763800001.75)


async def write(service):
    session = await service.create_session(
        app_name=APP,
        user_id=USER,
        session_id="s-1",
        state={"initial": {"ä": 1}, "app:a": [1], "user:u": {"x": None}},
    )
    for event in events():
        await service.append_event(session, event)


async def test_tables_and_rows_are_the_same_as_those_that_adk_writes(tmp_path):
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    async with LapseSessionService(store_with_parts(f"sqlite:///{ours}")) as service:
        await write(service)
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{theirs}") as service:
        await write(service)

    schema = (
        "SELECT type, name, tbl_name, sql FROM sqlite_master "
        f"WHERE tbl_name IN {ADK_TABLES} ORDER BY 1, 2"
    )
    assert [*_but_old_index(rows(ours, schema))] == [*_but_old_index(rows(theirs, schema))]
    for table in ADK_TABLES:
        own, expected = dump(ours, table), dump(theirs, table)
        assert [without_moments(row) for row in own] == [without_moments(row) for row in expected]
        assert own or table == "none"


def _but_old_index(found):
    """Leave out the index of events where ADK has another one, with fewer columns."""
    for row in found:
        if not (is_before("2.10") and row[1].startswith("idx_events_app_user_session_ts")):
            yield row


def without_moments(row):
    """Leave out when the row was written, after a look at how that is written."""
    kept = []
    for column, value, kind in row:
        is_moment = column == "create_time"
        if column == "update_time" and not any(name == "create_time" for name, *_ in row):
            assert SECONDS.fullmatch(value)
            is_moment = True
        elif column in {"create_time", "update_time", "timestamp"}:
            assert STAMP.fullmatch(value)
        kept.append((column, kind) if is_moment else (column, value, kind))
    return kept


async def test_the_first_message_is_stored_like_any_other_whatever_the_lobby_held(tmp_path):
    files = {"ours": tmp_path / "ours.db", "theirs": tmp_path / "theirs.db"}
    for name, file in files.items():
        service = (
            LapseSessionService(store_with_parts(f"sqlite:///{file}"))
            if name == "ours"
            else DatabaseSessionService(f"sqlite+aiosqlite:///{file}")
        )
        async with service:
            session = await create_session(service, session_id="s-1", state={"a": 1, "user:u": 1})
            for number in range(3):
                delta = {"a": number, "ä": "\u2028", "app:n": number}
                event = state_event(delta, id=f"n{number}", timestamp=1000.25 + number)
                await service.append_event(session, event)
            await service.append_event(
                session, message_event(id="m", timestamp=1003.0, delta={"a": 9})
            )
    for table in ADK_TABLES:
        own, expected = dump(files["ours"], table), dump(files["theirs"], table)
        assert [without_moments(row) for row in own] == [without_moments(row) for row in expected]


async def test_stock_adk_sees_exactly_the_used_sessions(lapse, stock):
    used = await create_session(lapse, session_id="used", state={"k": 1, "app:a": 1, "user:u": 1})
    await lapse.append_event(used, state_event({"before": True}, **whole(0)))
    await lapse.append_event(used, message_event("hello", delta={"k": 2}, **whole(1)))
    waits = await create_session(lapse, session_id="waits", state={"k": 1})
    await lapse.append_event(waits, state_event({"k": 2}))

    listed = (await stock.list_sessions(app_name=APP)).sessions
    assert [found.id for found in listed] == ["used"]
    assert await get_session(stock, "waits") is None
    seen = await get_session(stock, "used")
    own = await get_session(lapse, "used")
    assert seen.events == own.events
    assert seen.state == own.state == {"k": 2, "before": True, "app:a": 1, "user:u": 1}
    assert seen.last_update_time == own.last_update_time
    if not is_before("2.2"):
        assert await stock.get_user_state(app_name=APP, user_id=USER) == {"u": 1}


def whole(second):
    """Return a time without fractions of microseconds, which ADK loses before 2.7."""
    return {"timestamp": 1_000_000_000.25 + second} if is_before("2.7") else {}


async def test_lapse_reads_what_stock_adk_appended_and_appends_after_it(lapse, stock):
    session = await create_session(lapse, session_id="s-1")
    await lapse.append_event(session, message_event("one", timestamp=1000.0))
    theirs = await get_session(stock, "s-1")
    delta = {"k": 1, "app:a": 1, "user:u": 1}
    await stock.append_event(theirs, message_event("two", timestamp=1001.0, delta=delta))

    with pytest.raises(StaleSessionError):
        await lapse.append_event(session, message_event("lost", timestamp=1002.0))
    fresh = await get_session(lapse, "s-1")
    assert texts(fresh) == ["one", "two"]
    assert fresh.state == delta
    await lapse.append_event(fresh, message_event("three", timestamp=1003.0))
    with pytest.raises(ValueError if is_before("2.7") else StaleSessionError, match="modified in"):
        await stock.append_event(theirs, message_event("lost", timestamp=1004.0))
    assert texts(await get_session(stock, "s-1")) == ["one", "two", "three"]


async def test_a_session_object_may_go_from_one_service_to_the_other(lapse, stock):
    session = await create_session(lapse, session_id="s-1")
    await lapse.append_event(session, message_event("one", timestamp=1000.0))
    theirs = await get_session(stock, "s-1")
    await lapse.append_event(theirs, message_event("two", timestamp=1001.0))
    assert texts(await get_session(stock, "s-1")) == ["one", "two"]


async def test_a_delete_by_stock_adk_removes_the_lifecycle_record_too(file, lapse, stock):
    session = await create_session(lapse, session_id="s-1", metadata={"page": "home"})
    await lapse.append_event(session, message_event())
    await delete_session(stock, "s-1")
    assert await get_session(lapse, "s-1") is None
    with pytest.raises(NoSuchSessionError):
        await lapse.lifecycle(SessionKey(APP, USER, "s-1"))
    assert rows(file, "SELECT count(*) FROM lapse_lobby") == [(0,)]
    again = await create_session(lapse, session_id="s-1")
    assert again.events == []


async def test_rows_of_a_session_deleted_without_foreign_keys_leave_no_visible_session(file, lapse):
    session = await create_session(lapse, session_id="s-1", metadata={"page": "home"})
    await lapse.append_event(session, message_event())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM events")
        connection.execute("DELETE FROM sessions")
    assert await get_session(lapse, "s-1") is None
    with pytest.raises(NoSuchSessionError):
        await lapse.lifecycle(SessionKey(APP, USER, "s-1"))
    again = await create_session(lapse, session_id="s-1", metadata={"page": "cart"})
    await lapse.append_event(again, message_event("anew"))
    assert texts(await get_session(lapse, "s-1")) == ["anew"]
    assert (await lapse.lifecycle(SessionKey(APP, USER, "s-1"))).metadata["page"] == "cart"


async def test_a_session_of_stock_adk_is_used_once_it_has_a_message(lapse, stock):
    session = await create_session(stock, session_id="s-1", state={"k": 1})
    assert await status_of(lapse, "s-1") is Status.ORPHAN
    await stock.append_event(session, state_event({"k": 2}, timestamp=1000.0))
    assert await status_of(lapse, "s-1") is Status.ORPHAN
    await stock.append_event(session, message_event(timestamp=1001.0))

    record = await lapse.lifecycle(SessionKey(APP, USER, "s-1"))
    assert record.status is Status.USED
    assert record.first_message_at.timestamp() == 1001.0
    assert record.metadata == {}
    assert (record.ttl, record.expires_at, record.restorable_until) == (None, None, None)


async def test_an_orphan_can_be_read_listed_and_appended_to(lapse, stock):
    await create_session(stock, session_id="s-1", state={"k": 1, "app:a": 1})
    orphan = await get_session(lapse, "s-1")
    assert orphan.state == {"k": 1, "app:a": 1}
    assert (await lapse.lifecycle(SessionKey(APP, USER, "s-1"))).metadata == {}
    listed = (await lapse.list_sessions(app_name=APP)).sessions
    assert [found.id for found in listed] == ["s-1"]

    await lapse.append_event(orphan, state_event({"k": 2}))
    assert await status_of(lapse, "s-1") is Status.ORPHAN
    await lapse.append_event(orphan, message_event("hello"))
    assert await status_of(lapse, "s-1") is Status.USED
    assert texts(await get_session(stock, "s-1")) == ["hello"]


async def test_an_id_that_stock_adk_has_taken_cannot_be_created_again(lapse, stock):
    await create_session(stock, session_id="s-1")
    with pytest.raises(AlreadyExistsError):
        await create_session(lapse, session_id="s-1")


async def test_a_session_of_stock_adk_whose_id_is_padded_is_found_by_that_id(lapse, stock):
    await create_session(stock, session_id=" s-1 ", state={"which": "padded"})
    await create_session(stock, session_id="s-1", state={"which": "bare"})
    assert (await get_session(lapse, " s-1 ")).state == {"which": "padded"}
    assert (await get_session(lapse, "s-1")).state == {"which": "bare"}
    assert (await get_session(lapse, "  s-1")).state == {"which": "bare"}
    await delete_session(lapse, " s-1 ")
    assert await get_session(stock, " s-1 ") is None
    assert await get_session(stock, "s-1") is not None


async def test_a_file_that_stock_adk_made_is_opened_without_a_change(tmp_path):
    file = tmp_path / "old.db"
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{file}") as stock:
        await write(stock)
        expected = await get_session(stock, "s-1")
    before = {table: dump(file, table) for table in ADK_TABLES}
    async with LapseSessionService(store_with_parts(f"sqlite+aiosqlite:///{file}")) as lapse:
        found = await get_session(lapse, "s-1")
        assert (found.events, found.state) == (expected.events, expected.state)
        assert await status_of(lapse, "s-1") is Status.USED
    assert {table: dump(file, table) for table in ADK_TABLES} == before


async def test_a_session_that_stock_adk_made_hides_a_waiting_one_of_the_same_key(lapse, stock):
    await create_session(lapse, session_id="s-1", state={"whose": "lobby"})
    theirs = await create_session(stock, session_id="s-1", state={"whose": "adk"})
    await stock.append_event(theirs, message_event("kept"))
    assert texts(await get_session(lapse, "s-1")) == ["kept"]
    assert await status_of(lapse, "s-1") is Status.USED
    assert len((await lapse.list_sessions(app_name=APP)).sessions) == 1
