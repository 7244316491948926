"""Stores read a session's events as one text, whatever their ids and their data hold."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import T0
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Rules
from lapse.store import store_from_url
from lapse.store.records import EventRecord, EventWindow, JoinedEvents
from lapse.store.sessions import Sessions
from lapse.store.sqlite import reading
from lapse.store.sqlite.batch import Batch
from lapse.store.sqlite.schema import connect, prepare
from lapse.store.sqlite.transaction import Transaction
from lapse.store.sqlite.values import to_micros, to_text
from postgres import database

KEY = SessionKey("app", "user", "session")

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\0,:0123456789\x1e\x1f"), max_size=9)
MOMENTS = st.sampled_from([T0 + timedelta(microseconds=n) for n in range(3)])
RECORDS = st.lists(
    st.builds(EventRecord, id=TEXT, invocation_id=TEXT, timestamp=MOMENTS, data=TEXT),
    max_size=6,
    unique_by=lambda record: record.id,
)
WINDOWS = st.builds(EventWindow, st.none() | st.integers(0, 4), st.none() | MOMENTS)


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("events") / "lapse.db")
    prepare(path)
    with closing(connect(path, cache=100)) as connection:
        yield connection


def store(connection: sqlite3.Connection, records: list[EventRecord]) -> None:
    """Make the session hold these events and no others."""
    connection.execute("DELETE FROM events")
    connection.execute("DELETE FROM sessions")
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, '{}', ?, ?)", (*KEY, to_text(T0), to_text(T0))
    )
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (one.id, *KEY, one.invocation_id, to_text(one.timestamp), one.data or None)
            for one in records
        ],
    )


def read(connection: sqlite3.Connection, window: EventWindow = EventWindow()):
    transaction = Transaction(Batch(connection), Rules(), to_micros(T0), {}, KEY)
    record = reading.read(transaction, window)
    assert record is not None
    return record.events


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORDS, window=WINDOWS)
def test_events_of_any_ids_and_any_data_are_read_as_they_are_stored(connection, records, window):
    """Seen to fail with lengths in characters, without the window, and with events in the order of
    the text.
    """
    store(connection, records)

    assert list(read(connection, window)) == window.of(records)


def test_the_same_events_are_the_same_text_and_any_other_event_another_text(connection):
    """Seen to fail with a text without times."""
    event = EventRecord("e", "i", T0, "{}")
    others = [
        EventRecord("f", "i", T0, "{}"),
        EventRecord("e", "j", T0, "{}"),
        EventRecord("e", "i", T0 + timedelta(microseconds=1), "{}"),
        EventRecord("e", "i", T0, "[]"),
    ]
    texts = []
    for one in (event, event, *others):
        store(connection, [one])
        events = read(connection)
        assert isinstance(events, JoinedEvents)
        texts.append(events.text)

    assert texts[0] == texts[1]
    assert len(set(texts)) == 1 + len(others)


def test_a_session_without_events_has_none(connection):
    store(connection, [])

    assert read(connection) == ()


def test_events_that_were_read_as_one_text_are_a_sequence_like_any_other(connection):
    records = [EventRecord(f"e{n}", "i", datetime(2030, 1, n, tzinfo=UTC), "{}") for n in (1, 2)]
    store(connection, records)
    events = read(connection)

    assert (events[0], events[-1], events[1:], len(events)) == (*records, records[1:], 2)
    assert events == tuple(records)
    assert events != tuple(records[:1])


INFINITY = [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]
WITHOUT_NUL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)
POSTGRES_RECORDS = st.lists(
    st.builds(
        EventRecord,
        id=WITHOUT_NUL,
        invocation_id=WITHOUT_NUL,
        timestamp=MOMENTS | st.sampled_from(INFINITY),
        data=st.just("") | WITHOUT_NUL.map(json.dumps),
    ),
    max_size=6,
    unique_by=lambda record: record.id,
)


class OnPostgres:
    """A PostgreSQL with one session, read by the store and written by a connection beside it."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        self._run = runner.run
        self._stored = store_from_url(url)
        self._run(self._stored.open())
        self._connection = self._run(asyncpg.connect(url))
        add = "INSERT INTO sessions VALUES ($1, $2, $3, '{}', now(), now())"
        self._run(self._connection.execute(add, *KEY))

    def close(self) -> None:
        self._run(self._connection.close())
        self._run(self._stored.close())

    def store(self, records: list[EventRecord]) -> None:
        rows = [
            (one.id, *KEY, one.invocation_id, one.timestamp.replace(tzinfo=None), one.data or None)
            for one in records
        ]
        add = "INSERT INTO events VALUES ($1, $2, $3, $4, $5, $6, $7)"
        self._run(self._connection.execute("DELETE FROM events"))
        self._run(self._connection.executemany(add, rows))

    def read(self, window: EventWindow) -> list[EventRecord]:
        record = self._run(Sessions(self._stored).read(KEY, window))
        assert record is not None
        return list(record.events)


@contextmanager
def on_postgres() -> Iterator[OnPostgres]:
    with database() as url, asyncio.Runner() as runner, closing(OnPostgres(runner, url)) as opened:
        yield opened


@pytest.fixture(scope="module")
def postgres():
    with on_postgres() as opened:
        yield opened


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=POSTGRES_RECORDS, window=WINDOWS)
def test_postgres_sends_events_of_any_ids_and_any_times_as_they_are_stored(
    postgres, records, window
):
    """Seen to fail with events in the order in which they are sent, and without infinite times."""
    postgres.store(records)
    expected = window.of(records)
    read = postgres.read(window)

    assert [(one.id, one.invocation_id, one.timestamp) for one in read] == [
        (one.id, one.invocation_id, one.timestamp) for one in expected
    ]
    assert [json.loads(one.data or "null") for one in read] == [
        json.loads(one.data or "null") for one in expected
    ]
