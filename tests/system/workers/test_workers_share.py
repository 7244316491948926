"""What two workers of a real server share: sessions, runs, notices, counts. One may be killed."""

from __future__ import annotations

import os
import signal

import pytest

from run_reading import begin, expected_steps, new_session_id, parse_events, path, reading, steps_of
from serving import eventually
from worker_clients import pid_of

pytestmark = pytest.mark.long

SESSIONS = "/apps/walker/users/ada/sessions"
CREATED = 'lapse_sessions_created_total{app="walker"}'


def create(to) -> str:
    answer = to.client.post(SESSIONS, json={})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def say(to, session: str, text: str, **headers: str) -> str:
    body = {
        "appName": "walker",
        "userId": "ada",
        "sessionId": session,
        "newMessage": {"role": "user", "parts": [{"text": text}]},
    }
    answer = to.client.post("/run_sse", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def texts(to, session: str) -> list[str]:
    answer = to.client.get(f"{SESSIONS}/{session}")
    assert answer.status_code == 200, answer.text
    return [event["content"]["parts"][0]["text"] for event in answer.json()["events"]]


def metric(to, sample: str) -> float:
    found = [
        line.rpartition(" ")[2]
        for line in to.client.get("/metrics").text.splitlines()
        if line.startswith(sample + " ")
    ]
    assert len(found) <= 1, found
    return float(found[0]) if found else 0.0


def test_a_session_of_one_worker_is_the_other_ones_too(clients):
    one, other = clients.of(1), clients.of(2)
    session = create(one)
    assert "heard it" in say(other, session, "tell it")
    assert texts(one, session) == ["tell it", "heard it"]
    assert "lapse serve: worker" not in clients.server.log  # lines name it as a field, worker=1


def test_either_worker_shows_the_counts_of_both(clients):
    """Seen to fail with a registry that shows what its own process counted."""
    one, other = clients.of(1), clients.of(2)
    before = metric(one, CREATED)
    for to, number in ((one, 3), (other, 2)):
        for _ in range(number):
            create(to)
    assert metric(one, CREATED) == metric(other, CREATED) == before + 5
    ages = 'lapse_time_to_first_message_seconds_bucket{app="walker",le="+Inf"}'
    before = metric(one, ages)
    for to in (one, other):
        say(to, create(to), "tell it")
    assert metric(one, ages) == metric(other, ages) == before + 2


def test_gauges_of_the_store_are_not_added_up_and_open_streams_are(clients):
    """Seen to fail with open streams of the asked worker alone."""
    one, other = clients.of(1), clients.of(2)
    for to in (one, other):
        assert metric(to, "lapse_ttl_default_seconds") == 1800
        assert metric(to, "lapse_store_up") == 1
    watching = [clients.of(1), clients.of(2)]
    events = f"{SESSIONS}/{create(one)}/lifecycle/events"
    before = metric(one, "lapse_streams_open")
    with watching[0].client.stream("GET", events), watching[1].client.stream("GET", events):
        for to in (one, other):
            eventually(lambda to=to: metric(to, "lapse_streams_open") == before + 2)
    eventually(lambda: metric(one, "lapse_streams_open") == before)


@pytest.mark.parametrize(("watched", "changed"), [(1, 2), (2, 1)])
def test_a_page_hears_at_once_what_the_other_worker_changes(clients, watched, changed):
    """No heartbeat helps. Seen to fail on SQLite with workers that tell each other nothing."""
    page, other = clients.of(watched), clients.of(changed)
    session = create(other)
    with page.client.stream("GET", f"{SESSIONS}/{session}/lifecycle/events") as stream:
        events = parse_events(stream.iter_lines())
        assert next(events).kind == "lifecycle"
        assert other.client.post(f"{SESSIONS}/{session}/lifecycle/extend").status_code == 200
        assert next(events).kind == "extended"
        say(other, session, "tell it")
        assert next(events).kind == "used"


def test_a_run_of_one_worker_is_followed_through_the_other(clients, tmp_path):
    one, other = clients.of(1), clients.of(2)
    session = new_session_id()
    assert one.client.post(f"{SESSIONS}/{session}", json={}).status_code == 200
    run_id = begin(one, session, f"gated 2 {tmp_path}")
    with reading(other, session, run_id=run_id) as events:
        (tmp_path / "1").touch()
        seen = [next(event for event in events if event.kind == "message")]
        (tmp_path / "2").touch()
        seen += events
    assert steps_of(seen) == expected_steps(2)


def test_a_run_is_cancelled_through_the_other_worker(clients, tmp_path):
    one, other = clients.of(1), clients.of(2)
    session = new_session_id()
    assert one.client.post(f"{SESSIONS}/{session}", json={}).status_code == 200
    run_id = begin(one, session, f"gated 1 {tmp_path}")
    assert other.client.delete(f"{path(session)}/{run_id}").status_code < 300
    shown = f"{path(session)}/{run_id}"
    eventually(lambda: one.client.get(shown).json()["status"] == "cancelled")


def test_a_request_with_a_key_is_done_once_whichever_worker_gets_it(clients):
    one, other = clients.of(1), clients.of(2)
    session, key = create(one), {"Idempotency-Key": "one-and-only"}
    first = say(one, session, "tell it", **key)
    assert say(other, session, "tell it", **key).count("heard it") == first.count("heard it")
    assert texts(one, session) == ["tell it", "heard it"]


def test_a_killed_worker_is_replaced_and_nothing_acknowledged_is_lost(clients):
    """The others go on answering while it starts.

    Seen to fail with a new worker that makes the shared socket block for a moment, and with counts
    that are kept in the process.
    """
    server, one, other = clients.server, clients.of(1), clients.of(2)
    session = create(one)
    say(one, session, "tell it")
    watching = clients.of(1)
    killed = pid_of(server, 1)
    counted = metric(other, CREATED)
    with watching.client.stream("GET", f"{SESSIONS}/{session}/lifecycle/events"):
        eventually(lambda: metric(other, "lapse_streams_open") == 1)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: metric(other, "lapse_streams_open") == 0)
    assert metric(other, CREATED) == counted
    assert texts(other, session) == ["tell it", "heard it"]
    eventually(lambda: pid_of(server, 1) not in {None, killed}, within=60)
    anew = clients.of(1)
    assert texts(anew, session) == ["tell it", "heard it"]
    create(anew)
    assert metric(anew, CREATED) == metric(other, CREATED) == counted + 1
