"""Whole servers: killed and started again, stopped, and started with other settings."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from serving import AGENTS, LAPSE, USER, Server, environment, eventually, serving

pytestmark = pytest.mark.long


def rows(folder, query):
    with closing(sqlite3.connect(folder / "lapse.db")) as connection:
        return connection.execute(query).fetchall()


def status_in_store(folder, session_id):
    query = f"SELECT status FROM lapse_lobby WHERE session_id = '{session_id}'"
    return rows(folder, query)[0][0]


def past_its_deadline(server, session_id, app="parrot"):
    record = server.lifecycle(session_id, app)
    return record["expiresAt"] is not None and record["serverTime"] > record["expiresAt"]


def refuses_connections(url):
    parts = urlsplit(url)
    with socket.socket() as client:
        return client.connect_ex((parts.hostname, parts.port)) != 0


def test_a_killed_server_loses_no_deadline_and_no_message(tmp_path):
    server = Server(tmp_path, str(AGENTS), SESSION_CLEANUP_TTL_MINUTES="0.05")
    try:
        spoken_to = server.create(options={"ttl_minutes": 60})
        assert server.run(spoken_to).status_code == 200
        far = server.create(state={"k": 1}, options={"ttl_minutes": 60})
        far_before = server.lifecycle(far)
        due = [server.create(state={"n": n}) for n in range(3)]
        assert server.lifecycle(due[0])["ttlMinutes"] == 0.05
        used_before = server.client.get(server.path(spoken_to)).json()
    finally:
        server.kill()

    query = f"SELECT session_id FROM lapse_lobby WHERE session_id IN {tuple(due)}"
    assert len(rows(tmp_path, query)) == 3
    with serving(tmp_path, str(AGENTS)) as again:
        eventually(lambda: {status_in_store(tmp_path, name) for name in due} == {"expired"})
        for name in due:
            assert again.client.get(again.path(name)).status_code == 404
            assert again.lifecycle(name)["ttlMinutes"] == 0.05
        assert again.lifecycle(far) | {"serverTime": ""} == far_before | {"serverTime": ""}
        assert again.client.get(again.path(spoken_to)).json() == used_before

        gauge = 'lapse_sessions{{app="parrot",status="{}"}}'
        assert again.metric(gauge.format("used")) == 1
        assert again.metric(gauge.format("waiting")) == 1
        assert again.metric(gauge.format("expired")) == 3

        assert again.run(due[0]).status_code == 200
        assert again.client.get(again.path(due[0])).json()["state"] == {"n": 0, "turns": 1}
        assert again.lifecycle(due[0])["status"] == "used"


def test_a_stopped_server_frees_the_port_and_the_store(tmp_path):
    server = Server(tmp_path, str(AGENTS))
    try:
        for _ in range(20):
            server.create(options={"ttl_minutes": 5})
        server.process.terminate()
        assert server.process.wait(timeout=20) in {0, -15}
        assert refuses_connections(server.url)
        assert "Traceback" not in server.log
        assert "error" not in server.log.lower()
        with closing(sqlite3.connect(tmp_path / "lapse.db", timeout=0)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
        assert rows(tmp_path, "SELECT count(*) FROM lapse_lobby") == [(20,)]
    finally:
        server.kill()


def test_without_a_sweeper_deadlines_hold_and_another_process_sweeps(tmp_path):
    # A folder that is itself an agent: runs need not name their app.
    with serving(tmp_path, str(AGENTS / "parrot"), LAPSE_SWEEPER="off") as server:
        swept, back = server.short_lived(), server.short_lived()
        assert server.client.get("/readyz").json() == {"status": "ready"}
        for name in (swept, back):
            assert server.client.get(server.path(name)).status_code == 404
            assert status_in_store(tmp_path, name) == "waiting"

        body = server.run_body(back, "hello")
        del body["appName"]
        assert server.client.post("/run", json=body).status_code == 200
        assert server.lifecycle(back)["status"] == "used"

        sweep = subprocess.run(
            [LAPSE, "sweep"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert sweep.stdout == "expired 1, purged 0, kept 0\n"
        assert status_in_store(tmp_path, swept) == "expired"
        assert server.run(swept).status_code == 200


def test_with_clean_up_disabled_nothing_expires_and_nothing_is_hidden(tmp_path):
    settings = {"SESSION_CLEANUP_ENABLED": "false", "SESSION_CLEANUP_TTL_MINUTES": "0.0005"}
    with serving(tmp_path, str(AGENTS), **settings) as server:
        session_id = server.create(state={"k": 1})
        eventually(lambda: past_its_deadline(server, session_id))
        assert server.lifecycle(session_id)["status"] == "waiting"
        assert server.client.get(server.path(session_id)).json()["state"] == {"k": 1}
        listed = server.client.get(server.path()).json()
        assert [session["id"] for session in listed] == [session_id]
        assert server.client.get("/readyz").status_code == 200

        assert server.run(session_id).status_code == 200
        record = server.lifecycle(session_id)
        assert (record["status"], record["resurrections"]) == ("used", 0)
        assert server.metric('lapse_sessions_expired_total{app="parrot"}') == 0


def test_serve_without_a_folder_serves_the_demo_and_says_so(tmp_path):
    # With no hours to restore, a session is deleted at its deadline.
    with serving(tmp_path, LAPSE_RESTORE_HOURS="0") as server:
        assert "demo" in server.log
        assert server.client.get("/list-apps").json() == ["concierge"]
        session_id = server.create("concierge")
        body = server.run_body(session_id, "a table for 4, please") | {"appName": "concierge"}
        answer = server.client.post("/run_sse", json=body | {"streaming": True})
        assert "reservation 1 for 4" in answer.text.replace('"}, {"text": "', "")
        assert "demo" in answer.text
        session = server.client.get(server.path(session_id, "concierge")).json()
        assert session["state"] == {"reservations": 1, "guests": 4}

        empty = server.create("concierge", options={"ttl_minutes": 0.01})
        path = server.path(empty, "concierge")
        eventually(lambda: server.client.get(path + "/lifecycle").status_code == 404)
        assert server.client.get(path).status_code == 404
        purged = 'lapse_sessions_purged_total{app="concierge"}'
        eventually(lambda: server.metric(purged) == 1)
        revived = server.client.post(path + "/lifecycle/resurrect")
        assert revived.status_code == 404
        assert not (AGENTS.parent / "lapse.db").exists()


def test_two_servers_on_one_file_expire_each_session_once(tmp_path):
    with serving(tmp_path, str(AGENTS)) as one, serving(tmp_path, str(AGENTS)) as two:
        body = {"options": {"ttl_minutes": 0.02}}
        names = [server.create(**body) for _ in range(20) for server in (one, two)]
        eventually(lambda: {two.lifecycle(name)["status"] for name in names} == {"expired"})
        expired = 'lapse_sessions_expired_total{app="parrot"}'
        eventually(lambda: one.metric(expired) + two.metric(expired) >= len(names))
        assert one.metric(expired) + two.metric(expired) == len(names)

        # Created on one, spoken to on the other.
        session_id = one.create()
        assert two.run(session_id).status_code == 200
        stored = one.client.get(one.path(session_id)).json()
        assert (stored["userId"], stored["state"]) == (USER, {"turns": 1})
