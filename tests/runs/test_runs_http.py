"""Runs over HTTP and WebSocket: a message keeps a session, and brings an expired one back."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from serving import USER, eventually


def answers(server, route, session_id, text="hello"):
    """Return the texts of a run's events, or the status it is refused with."""
    response = server.client.post(route, json=server.run_body(session_id, text))
    if response.status_code != 200:
        return response.status_code
    events = (
        response.json()
        if route == "/run"
        else [
            json.loads(line.removeprefix("data: "))
            for line in response.text.splitlines()
            if line.startswith("data: ")
        ]
    )
    return [event["content"]["parts"][0]["text"] for event in events if "content" in event]


def live(server, session_id):
    address = server.url.replace("http", "ws", 1)
    query = f"app_name=parrot&user_id={USER}&session_id={session_id}&modalities=TEXT"
    return connect(f"{address}/run_live?{query}", proxy=None)


def say_live(server, session_id, text):
    with live(server, session_id) as socket:
        content = {"role": "user", "parts": [{"text": text}]}
        socket.send(json.dumps({"content": content}))
        while True:
            event = json.loads(socket.recv(timeout=20))
            if event.get("author") == "parrot" and "content" in event:
                return event["content"]["parts"][0]["text"]


both = pytest.mark.parametrize("route", ["/run", "/run_sse"])


def test_a_message_in_time_keeps_the_session_past_its_deadline(server):
    kept = [server.create(options={"ttl_minutes": 0.02}) for _ in range(2)]
    empty = server.create(options={"ttl_minutes": 0.02})
    assert answers(server, "/run", kept[0]) == ["heard: hello"]
    assert answers(server, "/run_sse", kept[1]) == ["heard: hello"]
    eventually(lambda: server.lifecycle(empty)["status"] == "expired")
    for session_id in kept:
        assert server.lifecycle(session_id)["status"] == "used"
        assert server.client.get(server.path(session_id)).json()["state"] == {"turns": 1}


@both
def test_a_message_to_an_expired_session_resurrects_it(server, route):
    session_id = server.short_lived(state={"draft": "hel"})
    assert server.client.get(server.path(session_id)).status_code == 404
    assert answers(server, route, session_id) == ["heard: hello"]
    session = server.client.get(server.path(session_id)).json()
    assert session["state"] == {"draft": "hel", "turns": 1}
    record = server.lifecycle(session_id)
    assert (record["status"], record["resurrections"]) == ("used", 1)


@both
def test_a_run_may_name_its_session_in_snake_case(server, route):
    session_id = server.short_lived()
    body = server.run_body(session_id, "hello")
    renamed = {
        "app_name": body["appName"],
        "user_id": body["userId"],
        "session_id": session_id,
        "new_message": body["newMessage"],
    }
    assert server.client.post(route, json=renamed).status_code == 200
    assert server.lifecycle(session_id)["status"] == "used"


@both
def test_a_run_does_not_resurrect_a_purged_or_unknown_session(server, route):
    deleted = server.short_lived()
    server.client.delete(server.path(deleted))
    assert answers(server, route, deleted) == 404
    assert answers(server, route, "never-was") == 404


@both
def test_a_run_resurrects_only_its_own_session(server, route):
    own, other = server.short_lived(), server.short_lived()
    answers(server, route, own)
    assert server.lifecycle(other)["status"] == "expired"


def test_a_streamed_run_shows_partial_answers_and_stores_the_whole_answer(server):
    session_id = server.create()
    body = server.run_body(session_id, "hey") | {"streaming": True}
    with server.client.stream("POST", "/run_sse", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [
            json.loads(line.removeprefix("data: "))
            for line in response.iter_lines()
            if line.startswith("data: ")
        ]
    assert sum(event.get("partial", False) for event in events) == len("hey")
    stored = server.client.get(server.path(session_id)).json()["events"]
    said = [event["content"]["parts"][0]["text"] for event in stored if "content" in event]
    assert said == ["hey", "heard: hey"]


def test_the_users_message_is_kept_when_the_agent_fails(server):
    session_id = server.short_lived()
    body = server.run_body(session_id, "fail please")
    response = server.client.post("/run_sse", json=body)
    assert "error" in response.text
    stored = server.client.get(server.path(session_id)).json()["events"]
    assert stored[0]["content"]["parts"] == [{"text": "fail please"}]
    assert server.lifecycle(session_id)["status"] == "used"


def test_a_live_run_keeps_its_session(server):
    session_id = server.create()
    assert say_live(server, session_id, "over the wire") == "heard: over the wire"
    assert server.lifecycle(session_id)["status"] == "used"


def test_a_live_run_resurrects_its_session_before_adk_looks_for_it(server):
    session_id = server.short_lived(state={"draft": "hel"})
    assert say_live(server, session_id, "back again") == "heard: back again"
    record = server.lifecycle(session_id)
    assert (record["status"], record["resurrections"]) == ("used", 1)
    session = server.client.get(server.path(session_id)).json()
    assert session["state"]["draft"] == "hel"


def test_connecting_a_live_run_resurrects_the_session_and_is_not_a_message(server):
    session_id = server.short_lived()
    with live(server, session_id):
        eventually(lambda: server.lifecycle(session_id)["resurrections"] == 1)
        assert server.lifecycle(session_id)["hasMessages"] is False


def test_a_live_run_on_an_unknown_session_is_closed_with_a_reason(server):
    with live(server, "never-was") as socket, pytest.raises(ConnectionClosedError) as caught:
        socket.recv(timeout=20)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1002, "Session not found")


def test_concurrent_first_messages_are_all_answered_and_stored(server):
    with ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(answers, server, "/run", server.create(), str(n)) for n in range(24)]
    assert [run.result() for run in runs] == [[f"heard: {n}"] for n in range(24)]
