"""What cannot be migrated is refused with one sentence, and left as it is."""

import asyncio
import os
import pickle
import sqlite3
import subprocess
from contextlib import closing

import asyncpg
import pytest
from google.adk.events.event_actions import EventActions

import postgres
from lapse.core.errors import LapseError
from lapse.databases.v0.migrate import migrate
from lapse.databases.v0.places import place_from_url
from serving import LAPSE, environment
from stock_databases import place_of
from v0_databases import SESSIONS, content, execute, query, read_all, stock

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # what ADK calls itself
]


MIGRATE = ("migrate", "--from-v0", "--yes", "--quiet")


def refused(done, *words):
    """Check that a command failed with one sentence, and return it."""
    assert (done.status, done.out) == (1, ""), done
    assert done.err.startswith("lapse: ")
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
    return done.err


@pytest.mark.parametrize("old", [""])
@pytest.mark.parametrize("kind", ["sqlite", "postgres", "adk-web"])
def test_only_version_0_is_migrated(lapse, kind, tmp_path):
    (tmp_path / "other").mkdir()
    with place_of(kind, tmp_path / "other") as (url, opened):
        if kind == "sqlite":
            refused(lapse(*MIGRATE, "--store", url), "no such file")
            assert list((tmp_path / "other").iterdir()) == []
            execute(url, "CREATE TABLE mine (k)")
        if kind != "adk-web":
            refused(lapse(*MIGRATE, "--store", url), "no sessions of ADK")

        async def fill():
            service = opened()
            if kind == "sqlite":
                execute(url, "DROP TABLE mine")
            await service.create_session(app_name="a", user_id="u", session_id="s")
            await service.close()

        asyncio.run(fill())
        done = lapse("migrate", "--from-v0", "--yes", "--store", url)
        if kind == "adk-web":
            refused(done, "SqliteSessionService")
        else:
            assert (done.status, "nothing to migrate" in done.out) == (0, True)


@pytest.mark.parametrize("old", [""])
def test_a_wrong_command_line_is_refused(lapse):
    for options in (
        ("--from-v0", "--undo-v0"),
        ("--from-v0", "--print"),
        ("--yes",),
        ("--dry-run",),
        ("--undo-v0", "--time-zone", "Asia/Tokyo"),
        ("--from-v0", "--quiet"),
    ):
        assert lapse.bare("migrate", *options).status == 2, options
    for url in ("mysql://u:secret@host/db", "sqlite:///:memory:"):
        said = refused(lapse.bare("migrate", "--from-v0", "--store", url), "store URL")
        assert "secret" not in said
    role = lapse.bare("migrate", "--from-v0", "--role", "r", "--store", "sqlite:///x.db")
    refused(role, "SQLite has no roles")


def test_without_a_yes_nothing_is_changed(lapse, old):
    before = content(old)
    for options in (["--from-v0"], ["--from-v0", "--dry-run"]):
        done = subprocess.run(
            [LAPSE, "migrate", *options, "--store", old],
            env=environment(),
            input="n\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == ("--dry-run" not in options)
        assert "42 of events" in done.stdout
        assert content(old) == before
    name = "tablename FROM pg_tables" if old.startswith("postgres") else "name FROM sqlite_master"
    assert [row for row in query(old, f"SELECT {name}") if row[0].startswith("lapse_")] == []


HANGING = {
    "column": ("ALTER TABLE events ADD COLUMN mood VARCHAR(9)", "'mood'"),
    "column of sessions": ("ALTER TABLE sessions ADD COLUMN tenant VARCHAR(9)", "'tenant'"),
    "reference": (
        """CREATE TABLE notes (a VARCHAR(128), u VARCHAR(128), s VARCHAR(128),
        FOREIGN KEY (a, u, s) REFERENCES sessions (app_name, user_id, id))""",
        "the table notes refers to sessions",
    ),
    "view": ("CREATE VIEW seen AS SELECT id FROM events", "the view seen shows events"),
    "no key": ("ALTER TABLE events RENAME COLUMN author TO writer", "no column author"),
    "metadata": ("CREATE TABLE adk_internal_metadata (key TEXT)", "which only version 1 has"),
}


@pytest.mark.parametrize("what", HANGING)
def test_what_would_not_follow_to_the_new_tables_is_refused(lapse, old, what):
    """Seen to fail with a look at ADK's own columns alone."""
    statement, told = HANGING[what]
    execute(old, statement)
    before = content(old)
    refused(lapse(*MIGRATE), told)
    refused(lapse("migrate", "--from-v0", "--dry-run"), told)
    assert content(old) == before


def test_a_trigger_is_refused(lapse, old, kind):
    execute(
        old,
        "CREATE TRIGGER spy AFTER INSERT ON events BEGIN SELECT 1; END"
        if kind == "sqlite"
        else "CREATE TRIGGER spy BEFORE UPDATE ON events FOR EACH ROW "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    )
    refused(lapse(*MIGRATE), "the trigger spy hangs on events")


class Evil:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_a_hostile_row_is_refused_by_name_and_executes_nothing(lapse, old, kind, tmp_path):
    """Seen to fail with `pickle.loads`."""
    state = EventActions(state_delta={"secret-key": Evil()})
    hostile = pickle.dumps(state).hex()
    blob = f"x'{hostile}'" if kind == "sqlite" else f"'\\x{hostile}'::bytea"
    execute(old, f"UPDATE events SET actions = {blob} WHERE id = 'event-0020-shop'")
    before = content(old)
    rehearsed = lapse("migrate", "--from-v0", "--dry-run")
    assert rehearsed.status == 1
    for said in (rehearsed.err, refused(lapse(*MIGRATE))):
        assert "event event-00… of session täg-🌍" in said
        assert "posix.system" in said
        assert "event-0020" not in said
        assert "secret" not in said
    assert content(old) == before
    assert not (tmp_path / "executed").exists()

    async def readable():
        async with stock(old) as service:
            return len((await read_all(service, SESSIONS[-1:]))[0].events)

    assert asyncio.run(readable()) == 14
    execute(old, "DELETE FROM events WHERE id = 'event-0020-shop'")
    assert "events: 41 rows" in lapse("migrate", "--from-v0", "--yes").out


def test_what_adk_does_not_take_is_refused_without_its_content(lapse, old):
    execute(old, "UPDATE events SET content = '{\"secret\": 1}' WHERE id = 'event-0001-shop'")
    said = refused(lapse(*MIGRATE), "its content", "event event-00…")
    assert "extra_forbidden" in said


def test_somebody_who_writes_is_not_waited_for_forever(lapse, old, kind):
    """Seen to fail with a migration that takes no lock."""
    if kind == "sqlite":
        file = old.removeprefix("sqlite:///")
        with closing(sqlite3.connect(file, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            refused(lapse(*MIGRATE), "locked by another process")
            writer.execute("ROLLBACK")
        return

    async def write():
        writer = await asyncpg.connect(old)
        async with writer.transaction():
            await writer.execute("UPDATE sessions SET state = '{}' WHERE id = 'empty'")
            with pytest.raises(LapseError, match="somebody uses ADK's tables"):
                await migrate(place_from_url(old), "UTC")
        async with writer.transaction():
            await writer.execute("SELECT 1 FROM sessions")  # who reads is in the way of the end
            with pytest.raises(LapseError, match="somebody uses ADK's tables"):
                await migrate(place_from_url(old), "UTC")
        await writer.close()
        await migrate(place_from_url(old), "UTC")

    asyncio.run(write())
    assert query(old, "SELECT count(*) FROM lapse_v0_events") == [(42,)]


def change_at_once(url):
    change = "UPDATE sessions SET state = '{}'"
    if url.startswith("postgres"):
        postgres.run(url, f"SET lock_timeout = 10; {change}")
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0)) as other:
        other.execute(change)


def test_nobody_writes_while_a_migration_is_at_work(old, kind):
    async def try_to_write():
        async with place_from_url(old).locked() as work:
            await work.begin("UTC")
            with pytest.raises((sqlite3.OperationalError, asyncpg.LockNotAvailableError)):
                change_at_once(old)
            if kind == "postgres":
                assert query(old, "SELECT count(*) FROM events") == [(42,)]
                with pytest.raises(LapseError, match="or migrates them"):
                    async with place_from_url(old).locked():
                        pass

    asyncio.run(try_to_write())


@pytest.mark.parametrize("kind", ["postgres"])
def test_another_role_is_told_that_it_may_not(lapse, old):
    execute(
        old,
        "DROP ROLE IF EXISTS reader_of_v0",
        "CREATE ROLE reader_of_v0 LOGIN",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO reader_of_v0",
    )
    try:
        url = old.replace("postgres@", "reader_of_v0@")
        said = refused(lapse(*MIGRATE, "--store", url), "of another role")
        assert "owner of ADK's tables" in said
        assert lapse("migrate", "--from-v0", "--yes").status == 0
        # Who could use the old tables can use the new ones.
        assert query(url, "SELECT count(*) FROM events") == [(42,)]
        assert query(url, "SELECT value FROM adk_internal_metadata") == [("1",)]
    finally:
        execute(old, "DROP OWNED BY reader_of_v0", "DROP ROLE reader_of_v0")


@pytest.mark.parametrize("kind", ["postgres"])
def test_a_superuser_leaves_the_tables_to_their_owner(lapse, old):
    execute(
        old,
        "DROP ROLE IF EXISTS owner_of_v0",
        "CREATE ROLE owner_of_v0 LOGIN",
        "GRANT CREATE ON SCHEMA public TO owner_of_v0",
        *(
            f"ALTER TABLE {name} OWNER TO owner_of_v0"
            for name in ("sessions", "events", "app_states", "user_states")
        ),
    )
    try:
        assert lapse("migrate", "--from-v0", "--yes").status == 0
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename IN "
        names = "('sessions', 'events', 'app_states', 'user_states', 'adk_internal_metadata')"
        assert query(old, owners + names) == [("owner_of_v0",)]
    finally:
        execute(old, "REASSIGN OWNED BY owner_of_v0 TO postgres", "DROP OWNED BY owner_of_v0")
        execute(old, "DROP ROLE owner_of_v0")
