"""A real server tells a webhook, and what it tells survives its end."""

import re
import sqlite3
from contextlib import closing

import httpx
import pytest
from test_webhooks_signing import is_from_lapse

from receiving import SECRET, receiving
from serving import AGENTS, eventually, lapse, serving

pytestmark = pytest.mark.long


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


def execute(server, statement):
    with closing(sqlite3.connect(server.folder / "lapse.db", timeout=30)) as connection, connection:
        return connection.execute(statement).fetchall()


def announced(server):
    eventually(lambda: execute(server, "SELECT 1 FROM lapse_webhooks"))


def due_at_once(server):
    execute(server, "UPDATE lapse_webhook_outbox SET due_at = 0")


def test_an_expiry_and_a_resurrection_are_told_and_signed(tmp_path, receiver):
    with serving(tmp_path, str(AGENTS), **receiver.settings()) as server:
        announced(server)
        session_id = server.short_lived()
        eventually(lambda: receiver.bodies("session.expired"))
        server.client.post(server.path(session_id) + "/lifecycle/resurrect").raise_for_status()
        (told,) = eventually(lambda: receiver.bodies("session.resurrected"))
        assert told["data"]["sessionId"] == session_id
        assert told["data"]["resurrections"] == 1
        for _, headers, body in receiver.came:
            assert is_from_lapse()(headers, body, SECRET)
        sent = 'lapse_webhooks_sent_total{event="session.expired"}'
        eventually(lambda: server.metric(sent) == 1)
        assert "of-the-url" not in server.log
        assert session_id not in server.log


@pytest.mark.parametrize("when", ["before the answer", "after the answer"])
def test_an_event_survives_kill_9(tmp_path, receiver, when):
    """It comes again, with the same id. Seen to fail with a take that deletes."""
    receiver.answers = None if when == "before the answer" else 500
    with serving(tmp_path, str(AGENTS), **receiver.settings()) as server:
        announced(server)
        server.short_lived()
        eventually(lambda: receiver.came)
        server.kill()
    receiver.let_go.set()
    receiver.answers = 200
    due_at_once(server)
    with serving(tmp_path, str(AGENTS), **receiver.settings()) as server:
        eventually(lambda: len(receiver.came) > 1)
        eventually(lambda: not execute(server, "SELECT 1 FROM lapse_webhook_outbox"))
    assert len(set(receiver.ids)) == 1
    assert len({body for _, _, body in receiver.came}) == 1


def test_a_process_without_the_setting_writes_events_too(tmp_path, receiver):
    """Seen to fail with an expiry that no trigger sees."""
    with serving(tmp_path, str(AGENTS), LAPSE_SWEEPER="off", **receiver.settings()) as server:
        announced(server)
        session_id = server.create()
        done = lapse(tmp_path, "expire", f"parrot/ada/{session_id}")
        assert done.returncode == 0, done.stdout + done.stderr
        (told,) = eventually(lambda: receiver.bodies("session.expired"))
        assert told["data"]["sessionId"] == session_id


def test_page_check_and_metrics_tell_what_is_given_up(tmp_path, receiver):
    receiver.answers = 500
    token = "t" * 24
    settings = receiver.settings() | {"LAPSE_ADMIN_TOKEN": token}
    with serving(tmp_path, str(AGENTS), **settings) as server:
        announced(server)
        server.short_lived()
        eventually(lambda: receiver.came)
        execute(server, "UPDATE lapse_webhook_outbox SET at = at - 4 * 86400000000")
    with serving(tmp_path, str(AGENTS), **settings) as server:  # maintenance comes at once
        eventually(lambda: execute(server, "SELECT 1 FROM lapse_webhook_dead"))
        eventually(lambda: server.metric("lapse_webhooks_given_up") == 1)
        with httpx.Client(base_url=server.url, trust_env=False) as browser:
            answer = browser.post(
                "/lapse/login",
                data={"token": token, "name": ""},
                headers={"Origin": server.origin},
            )
            assert answer.status_code == 303, answer.text
            page = browser.get("/lapse/").text
        assert re.search(r"No events wait for the webhook; 1 were given up", page)
        done = lapse(tmp_path, "check", **receiver.settings())
        assert "PROBLEM  webhook: 0 events wait; 1 were given up" in done.stdout
        assert done.returncode == 3
