"""What `lapse serve` and `lapse sweep` say when they cannot begin, and that nothing is lost."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing

import pytest
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from serving import lapse


def refusal(folder, *arguments, **settings):
    """Return what a command says that must fail."""
    done = lapse(folder, *arguments, **settings)
    assert done.returncode == 1, done
    assert done.stderr.startswith("lapse: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def script(file, text):
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(text)


ADK_0 = """
CREATE TABLE sessions (app_name, user_id, id, state, create_time, update_time);
CREATE TABLE events (id, app_name, user_id, session_id, actions);
"""
METADATA = "CREATE TABLE adk_internal_metadata (key PRIMARY KEY, value);"
NEWER = """
CREATE TABLE lapse_schema (version PRIMARY KEY, applied_at);
INSERT INTO lapse_schema VALUES (999, '');
"""
WRONG_FILES = {
    "no database": (None, "not an SQLite database"),
    "somebody's sessions": ("CREATE TABLE sessions (id, token)", "sessions"),
    "somebody's events": ("CREATE TABLE events (id, what)", "events"),
    "ADK's version 0": (ADK_0, "`lapse migrate --from-v0 --store URL`"),
    "ADK's version 2": (
        f"{METADATA} INSERT INTO adk_internal_metadata VALUES ('schema_version', '2')",
        "version '2'",
    ),
    "ADK's without version": (METADATA, "version"),
    "a newer Lapse's": (NEWER, "newer Lapse"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_file_that_is_not_a_store_is_refused_and_left_unchanged(tmp_path, kind):
    content, reason = WRONG_FILES[kind]
    file = tmp_path / "wrong.db"
    if content is None:
        file.write_bytes(b"a letter, not a database " * 50)
    else:
        script(file, content)
    before = file.read_bytes()
    said = refusal(tmp_path, "serve", "--port", "0", "--store", "sqlite:///wrong.db")
    assert "wrong.db" in said
    assert reason in said
    assert file.read_bytes() == before


def dump(file):
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


async def test_a_session_file_of_adks_own_web_server_is_refused(tmp_path):
    service = SqliteSessionService(str(tmp_path / "session.db"))
    await service.create_session(app_name="app", user_id="ada", session_id="s-1")
    await service.close()
    before = dump(tmp_path / "session.db")
    said = refusal(tmp_path, "serve", "--port", "0", "--store", "sqlite:///session.db")
    assert "session.db" in said
    assert "SqliteSessionService" in said
    assert dump(tmp_path / "session.db") == before


def test_a_locked_file_is_refused_and_left_unchanged(tmp_path):
    file = tmp_path / "lapse.db"
    script(file, "CREATE TABLE mine (k); INSERT INTO mine VALUES (1)")
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        said = refusal(tmp_path, "sweep")
        holder.execute("ROLLBACK")
        assert holder.execute("SELECT k FROM mine").fetchall() == [(1,)]
    assert "lapse.db" in said
    assert "locked" in said


@pytest.mark.parametrize("url", ["sqlite:///no/such/folder/lapse.db", "sqlite:///taken"])
def test_a_store_file_in_an_impossible_place_is_refused(tmp_path, url):
    (tmp_path / "taken").mkdir()
    said = refusal(tmp_path, "serve", "--port", "0", "--store", url)
    assert url.removeprefix("sqlite:///") in said
    assert "opened" in said


@pytest.mark.parametrize("url", ["mysql://host/db", "lapse.db", "sqlite://lapse.db", "sqlite:/x"])
def test_a_wrong_store_url_is_refused(tmp_path, url):
    assert "store URL" in refusal(tmp_path, "serve", "--port", "0", "--store", url)


def test_a_missing_folder_of_agents_is_refused(tmp_path):
    assert "agentz" in refusal(tmp_path, "serve", "agentz")
    assert not (tmp_path / "lapse.db").exists()


def test_a_folder_without_agents_is_refused(tmp_path):
    (tmp_path / "empty" / "notes").mkdir(parents=True)
    said = refusal(tmp_path, "serve", "empty")
    assert "empty" in said
    assert "root_agent" in said
    assert not (tmp_path / "lapse.db").exists()


def test_a_port_in_use_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = refusal(tmp_path, "serve", "--port", port)
    assert port in said
    assert "--port" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_serve_refuses_other_hosts_than_loopback_without_authentication(tmp_path, host):
    # On a wrong store, so that not even a server that forgot to refuse would listen.
    script(tmp_path / "wrong.db", "CREATE TABLE events (id, what)")
    options = ["--port", "0", "--store", "sqlite:///wrong.db"]
    said = refusal(tmp_path, "serve", "--host", host, *options)
    assert host in said
    assert "--insecure" in said
    assert "wrong.db" not in said


def test_serve_accepts_any_host_with_the_option_insecure(tmp_path):
    script(tmp_path / "wrong.db", "CREATE TABLE events (id, what)")
    options = ["--port", "0", "--store", "sqlite:///wrong.db"]
    said = refusal(tmp_path, "serve", "--host", "0.0.0.0", "--insecure", *options)
    assert "--insecure" not in said
    assert "wrong.db" in said


def test_serve_accepts_any_host_with_authentication(tmp_path):
    script(tmp_path / "wrong.db", "CREATE TABLE events (id, what)")
    arguments = ["serve", "--host", "0.0.0.0", "--port", "0", "--store", "sqlite:///wrong.db"]
    said = refusal(tmp_path, *arguments, LAPSE_AUTH="header", LAPSE_AUTH_PROXIES="192.0.2.1")
    assert "--insecure" not in said
    assert "wrong.db" in said


def test_a_key_that_is_no_key_is_refused_and_not_shown(tmp_path):
    key = "-----BEGIN PUBLIC KEY-----\nfoundation\n-----END PUBLIC KEY-----"
    jwt = {"AUTH": "jwt", "JWT_ISSUER": "https://i", "JWT_AUDIENCE": "a", "JWT_KEY": key}
    settings = {f"LAPSE_{name}": value for name, value in jwt.items()}
    said = refusal(tmp_path, "serve", "--port", "0", **settings)
    assert "LAPSE_JWT_KEY: is no key for RS256" in said
    assert "foundation" not in said
    assert not (tmp_path / "lapse.db").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_serve_accepts_loopback_without_authentication(tmp_path, host):
    script(tmp_path / "wrong.db", "CREATE TABLE events (id, what)")
    said = refusal(
        tmp_path, "serve", "--host", host, "--port", "0", "--store", "sqlite:///wrong.db"
    )
    assert "--insecure" not in said
