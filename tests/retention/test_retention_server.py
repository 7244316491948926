"""A real server archives by a confirmed policy, is killed in the middle, and loses nothing."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status
from parts import store_with_parts
from serving import AGENTS, USER, eventually, serving
from serving import lapse as command

pytestmark = pytest.mark.long

EVENTS = 3
"""So many a run of the agent leaves, the user's message included."""

POLICY = '[default]\nidle = "1s"\narchive = "{archive}"\n'


def confirmed(folder, archive="100d"):
    """Write a policy and confirm it in the folder's store; return the settings of a server."""
    path = folder / "policy.toml"
    path.write_text(POLICY.format(archive=archive))
    settings = {"LAPSE_RETENTION_FILE": str(path)}
    store = f"sqlite:///{folder / 'lapse.db'}"
    done = command(folder, "retention", "confirm", "--yes", "--store", store, **settings)
    assert done.returncode == 0, done.stderr
    return settings


def used(server):
    session_id = server.create()
    server.run(session_id)
    return session_id


def test_a_server_archives_restores_and_archives_again(tmp_path):
    """From the confirmation on, and with no session touched before it."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.format(archive="100d"))
    with serving(tmp_path, str(AGENTS), LAPSE_RETENTION_FILE=str(path)) as server:
        session_id = used(server)
        eventually(lambda: "the policy is not confirmed" in server.log)
        assert server.lifecycle(session_id)["status"] == "used"
        confirmed(tmp_path)
        eventually(lambda: server.lifecycle(session_id)["status"] == "archived")
        assert server.run(session_id, "again").status_code == 200
        events = server.client.get(server.path(session_id)).json()["events"]
        assert len(events) == 2 * EVENTS
        eventually(lambda: server.lifecycle(session_id)["status"] == "archived")
        assert server.metric('lapse_sessions_archived_total{app="parrot"}') == 2
        assert (
            server.metric('lapse_sessions_restored_total{app="parrot",cause="request"}')
            + (server.metric('lapse_sessions_restored_total{app="parrot",cause="run"}'))
            == 1
        )
        assert session_id not in server.log


def test_a_server_purges_what_its_policy_says(tmp_path):
    with serving(tmp_path, str(AGENTS)) as server:
        session_id = used(server)
    with serving(tmp_path, str(AGENTS), **confirmed(tmp_path, "1s")) as server:
        eventually(lambda: server.client.get(server.path(session_id)).status_code == 404)
        eventually(
            lambda: server.client.get(server.path(session_id) + "/lifecycle").status_code == 404
        )


@pytest.mark.parametrize("kills", [6])
def test_a_server_that_is_killed_while_it_archives_leaves_each_session_whole(tmp_path, kills):
    """Each is in ADK's tables or in the archive, with all its events, whenever it is killed."""
    with serving(tmp_path, str(AGENTS)) as server:
        session_id = used(server)
    database = tmp_path / "lapse.db"
    names = copies(database, session_id, 3000)
    settings = confirmed(tmp_path)
    for _ in range(kills):
        with serving(tmp_path, str(AGENTS), **settings) as server:
            eventually(lambda: archived(database) > 0)
            server.kill()
        if archived(database) == len(names) + 1:
            break
    assert archived(database) > 0
    asyncio.run(check_whole(database, [session_id, *names]))


def archived(database):
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return connection.execute("SELECT count(*) FROM lapse_archive").fetchone()[0]


def copies(database, session_id, number):
    """Copy a used session many times; return the ids of the copies."""
    names = [f"copy-{place}" for place in range(number)]
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        for table in ("sessions", "events", "lapse_lobby"):
            column = "id" if table == "sessions" else "session_id"
            known = connection.execute(f"PRAGMA table_info({table})").fetchall()
            columns = [row[1] for row in known]
            others = [name for name in columns if name != column]
            connection.executemany(
                f"INSERT INTO {table} ({column}, {', '.join(others)}) "
                f"SELECT ?, {', '.join(others)} FROM {table} WHERE {column} = ?",
                [(name, session_id) for name in names],
            )
    return names


async def check_whole(database, names):
    store = store_with_parts(f"sqlite:///{database}")
    for name in names:
        key = SessionKey("parrot", USER, name)
        record = await store.lifecycle(key)
        assert record.status in {Status.USED, Status.ARCHIVED}
        if record.status is Status.ARCHIVED:
            assert await store.read(key) is None
            await store.resurrect(key, cause=Cause.REQUEST)
        assert len((await store.read(key)).events) == EVENTS
    await store.close()
