"""Streams of runs: their frames, and that a resumed stream loses and repeats nothing."""

import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from run_reading import (
    begin,
    expected_steps,
    new_session_id,
    parse_events,
    path,
    post,
    read,
    reading,
    steps_of,
)
from serving import eventually
from wire import request

pytestmark = pytest.mark.long


def replica(servers, where):
    return servers[0] if where == "same" else servers[1]


wherever = pytest.mark.parametrize("where", ["same", "other"])


def test_a_message_is_answered_at_once_and_streamed_from_a_second_request(servers, tmp_path):
    server, session = servers[0], new_session_id()
    answer = post(server, session, f"gated 2 {tmp_path}")
    told = answer.json()
    assert (told["success"], told["sessionId"], told["status"]) == (True, session, "running")
    below = urlsplit(server.url).path
    assert told["stream"] == f"{below}{path(session)}?runId={told['runId']}"
    record = server.lifecycle(session, "walker")
    assert (record["status"], record["metadata"]["kind"]) == ("used", "legacy-session")
    with server.client.stream("GET", server.origin + told["stream"]) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = parse_events(response.iter_lines())
        assert next(events).text == "1a"
        (tmp_path / "1").touch()
        (tmp_path / "2").touch()
        rest = list(events)
    assert [event.text for event in rest[:-1]] == ["1b", "step 1", "2a", "2b", "step 2"]
    assert (rest[-1].kind, rest[-1].document["runId"]) == ("done", told["runId"])
    assert all(event.id for event in rest)
    assert server.client.get(f"{path(session)}/{told['runId']}").json()["endedAt"]


@pytest.mark.parametrize("field", ["query", "newMessage"])
def test_older_names_for_a_message_and_adks_own_are_accepted(servers, field):
    server, session = servers[0], new_session_id()
    message = {"parts": [{"text": "walk 1"}]} if field == "newMessage" else "walk 1"
    assert server.client.post(path(session), json={field: message}).status_code == 200
    assert steps_of(read(server, session)) == expected_steps(1)


@pytest.mark.parametrize("order", ["walk 2", "artifact", "fail"])
def test_frames_equal_those_of_run_sse_byte_for_byte(servers, order):
    """ADK's own stream, the detached one, and the one that is read back from the store."""
    server, session = servers[0], new_session_id()
    server.create("walker", sessionId=session)
    body = {
        "appName": "walker",
        "userId": "ada",
        "sessionId": session,
        "newMessage": {"role": "user", "parts": [{"text": order}]},
        "streaming": True,
    }
    plain = server.client.post("/run_sse", json=body).text
    detached = server.client.post("/run_sse", json=body, headers={"Lapse-Detach": "true"}).text

    def shape(text):
        frames = [line for line in text.splitlines() if line.startswith("data:")]
        return [_without_accidents(json.loads(frame[5:]), frame) for frame in frames]

    assert shape(detached) == shape(plain)
    # And what is stored reads as it was sent.
    whole = [event for event in parse_events(detached.splitlines()) if "content" in event.document]
    sent = [event.data for event in whole if not event.is_partial]
    again = read(servers[0], session)
    kept = [event.data for event in again if event.kind == "message" and not event.is_partial]
    assert [json.loads(one) for one in kept if "content" in one][: len(sent)] == [
        json.loads(one) for one in sent
    ]


def _without_accidents(said, frame):
    """Blank out the ids and times of a frame, and return the frame as it then is."""
    frame = frame.replace(" ", "")
    for name in ("id", "invocationId", "timestamp"):
        if name in said:
            frame = frame.replace(json.dumps(said[name]), "-")
    if "error_details" in said:
        frame = frame.replace(json.dumps(said["error_details"]["timestamp"]), "-")
    return frame


@wherever
def test_a_resumed_stream_continues_after_the_last_frame_received(servers, where, tmp_path):
    """Seen to fail when a resume begins at the run's start, or with the live rest."""
    session = new_session_id()
    begin(servers[0], session, f"gated 4 {tmp_path}")
    for gate in "12":
        (tmp_path / gate).touch()
    seen = []
    with reading(servers[0], session) as events:
        for event in events:
            seen.append(event)
            if event.text == "step 2":
                break
    with reading(replica(servers, where), session, seen[-1].id) as events:
        (tmp_path / "3").touch()
        for event in events:
            seen.append(event)
            if event.text == "step 3":
                break
    (tmp_path / "4").touch()
    seen += read(replica(servers, where), session, seen[-1].id)
    assert steps_of(seen) == expected_steps(4)
    assert seen[-1].kind == "done"


@wherever
def test_a_stream_cut_in_the_middle_of_partial_text_loses_no_event(servers, where, tmp_path):
    session = new_session_id()
    begin(servers[0], session, f"gated 2 {tmp_path}")
    with reading(servers[0], session) as events:
        first = next(events)
    assert (first.text, first.is_partial) == ("1a", True)
    with reading(replica(servers, where), session, first.id) as events:
        (tmp_path / "1").touch()
        (tmp_path / "2").touch()
        rest = list(events)
    assert steps_of(rest) == expected_steps(2)
    if where == "same":
        assert [event.text for event in rest[:2]] == ["1b", "step 1"]


@wherever
def test_a_run_can_be_read_and_resumed_after_its_end(servers, where):
    session = new_session_id()
    begin(servers[0], session, "walk 5")
    whole = read(servers[0], session)
    server = replica(servers, where)
    again = read(server, session)
    assert steps_of(again) == expected_steps(5)
    for event in whole:
        if event.kind == "done":
            answer = server.client.get(path(session), headers={"Last-Event-ID": event.id})
            assert answer.status_code == 204
        elif not event.is_partial:
            number = int(event.text.removeprefix("step "))
            assert steps_of(read(server, session, event.id)) == expected_steps(5, number + 1)


@wherever
def test_events_with_equal_or_earlier_timestamps_keep_their_order(servers, where):
    """Seen to fail when the timestamps of a run's events are left as they are."""
    session = new_session_id()
    begin(servers[0], session, "twins 6")
    whole = read(servers[0], session)
    assert steps_of(whole) == expected_steps(6)
    server = replica(servers, where)
    assert steps_of(read(server, session)) == expected_steps(6)
    assert steps_of(read(server, session, whole[2].id)) == expected_steps(6, 4)


def test_a_resume_between_the_two_frames_of_an_event_begins_with_the_second(servers):
    session = new_session_id()
    begin(servers[0], session, "artifact")
    # The stream of the live run, and that of the stored one.
    for whole in (read(servers[0], session), read(servers[1], session)):
        words, artifacts, done, end = whole
        assert words.document["id"] == artifacts.document["id"] == artifacts.id != words.id
        for server in servers:
            rest = [one.id for one in read(server, session, artifacts.id)]
            assert rest == [done.id, end.id]
            assert [one.id for one in read(server, session, words.id)] == [artifacts.id, *rest]


def test_readers_of_every_kind_get_all_of_ten_thousand_events(servers):
    session = new_session_id()
    number = 10_000 if "sqlite" in str(servers[0].folder) else 2_500
    begin(servers[0], session, f"flood {number}")
    here = _read_all(servers[0], session)
    assert steps_of(here) == expected_steps(number // 5)
    there = read(servers[1], session)
    stored = [event.id for event in here if event.kind == "done" or not event.is_partial]
    assert [event.id for event in there] == stored
    late = stored[234]
    assert [event.id for event in read(servers[0], session, late)] == stored[235:]


@pytest.mark.parametrize("start_replica", ["sqlite"], indirect=True)
def test_a_slow_reader_is_disconnected_and_can_resume(servers, tmp_path):
    """Seen to fail when the ring keeps everything for it."""
    server, session, gate = servers[0], new_session_id(), tmp_path / "gate"
    begin(server, session, f"flood 1000 20000 {gate}")
    dropped = server.metric("lapse_run_readers_dropped_total")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(30)
        parts = urlsplit(server.url)
        slow.connect((parts.hostname, parts.port))
        slow.sendall(request("GET", path(session)))
        assert slow.recv(12) == b"HTTP/1.1 200"
        gate.touch()
        assert steps_of(_read_all(server, session)) == expected_steps(200)
        text = b""
        while not text.endswith(b"\r\n0\r\n\r\n"):
            text += slow.recv(1 << 16)
    assert b"event: done" not in text
    assert server.metric("lapse_run_readers_dropped_total") > dropped
    *_, last = re.findall(rb"^id: (\S+)\n", text, re.MULTILINE)
    had = re.findall(rb'"text":"(step \d+)"', text)
    rest = read(server, session, last)
    assert [step.decode() for step in had] + steps_of(rest) == expected_steps(200)


def _read_all(server, session):
    """Read to the end; resume whenever the server disconnects the slow reader."""
    events = []
    while not events or events[-1].kind == "message":
        events += read(server, session, events[-1].id if events else None)
    return events


def test_the_latest_run_is_streamed_unless_one_is_named(servers):
    session = new_session_id()
    first = begin(servers[0], session, "walk 1")
    read(servers[0], session)
    begin(servers[0], session, "walk 3")
    assert steps_of(read(servers[1], session)) == expected_steps(3)
    assert steps_of(read(servers[1], session, run_id=first)) == expected_steps(1)


def test_a_post_that_accepts_event_streams_is_answered_with_the_stream(servers):
    session = new_session_id()
    with servers[0].client.stream(
        "POST",
        path(session),
        json={"message": "walk 2"},
        headers={"Accept": "text/event-stream"},
    ) as response:
        events = list(parse_events(response.iter_lines()))
    assert steps_of(events) == expected_steps(2)
    assert response.headers["Lapse-Run"] == events[-1].document["runId"]


def test_a_detached_run_outlives_its_connection_and_a_plain_run_does_not(servers, tmp_path):
    """Seen to fail when the header is not looked at."""
    server = servers[0]
    for header, outlives in (({"Lapse-Detach": "true"}, True), ({}, False)):
        session = server.create("walker")
        folder = tmp_path / str(outlives)
        folder.mkdir()
        body = server.run_body(session, f"gated 2 {folder}") | {"appName": "walker"}
        with server.client.stream("POST", "/run_sse", json=body, headers=header) as response:
            (folder / "1").touch()
            for event in parse_events(response.iter_lines()):
                if not event.is_partial:
                    break
        if outlives:
            (folder / "2").touch()
            assert steps_of(read(servers[1], session, event.id)) == ["step 2"]
        else:
            # ADK seals the history of a run that its client has left.
            stored = server.path(session, "walker")
            eventually(lambda at=stored: "abort" in server.client.get(at).text.lower())
            assert server.client.get(path(session)).status_code == 404


def test_a_detached_run_resurrects_its_expired_session(servers):
    server = servers[0]
    session = server.create("walker", options={"ttl_minutes": 0.01})
    eventually(lambda: server.lifecycle(session, "walker")["status"] == "expired")
    begin(server, session, "walk 1")
    assert steps_of(read(server, session)) == expected_steps(1)
    record = server.lifecycle(session, "walker")
    assert record["status"] == "used"
    assert record["resurrections"]
