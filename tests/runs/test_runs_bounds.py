"""Limits of concurrent runs, the queue, and requests that are refused."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from run_reading import begin, expected_steps, new_session_id, path, post, read, steps_of
from serving import eventually

pytestmark = pytest.mark.long


def cancel(server, session, run_id):
    assert server.client.delete(f"{path(session)}/{run_id}").status_code == 200


def test_one_of_many_concurrent_posts_runs_and_the_others_are_told_which(servers, tmp_path):
    """Seen to fail without the unique index of runs in flight."""
    session = new_session_id()
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda n: post(servers[n % 2], session, f"gated 1 {tmp_path}"), range(6))
        )
    (won,) = [answer.json() for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {409}
    assert {answer.json()["runId"] for answer in refused} == {won["runId"]}
    (tmp_path / "1").touch()
    assert steps_of(read(servers[1], session)) == expected_steps(1)
    stored = servers[0].client.get(servers[0].path(session, "walker")).json()["events"]
    assert sum(event["author"] == "user" for event in stored) == 1


def test_a_queued_message_waits_its_turn_on_any_replica(servers, tmp_path):
    session = new_session_id()
    first = begin(servers[0], session, f"gated 1 {tmp_path}")
    with ThreadPoolExecutor(2) as pool:
        queued = [
            pool.submit(begin, server, session, "walk 2", ifBusy="queue") for server in servers
        ]
        (tmp_path / "1").touch()
        ids = [one.result() for one in queued]
    assert len({first, *ids}) == 3
    for run_id in ids:
        assert steps_of(read(servers[0], session, run_id=run_id)) == expected_steps(2)


def test_the_queue_is_bounded(strict_server, tmp_path):
    session = new_session_id()
    run_id = begin(strict_server, session, f"gated 1 {tmp_path}")
    refused = threading.Semaphore(0)

    def queue_up():
        answer = post(strict_server, session, "walk 1", ifBusy="queue")
        if answer.status_code == 409:
            assert answer.json()["runId"] == run_id
            refused.release()
            (tmp_path / "1").touch()
        return answer.status_code

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(queue_up) for _ in range(2)]
        assert refused.acquire(timeout=20)
    assert sorted(answer.result() for answer in answers) == [200, 409]


def test_the_runs_of_a_user_and_of_a_process_are_bounded(strict_server):
    sessions = [new_session_id() for _ in range(4)]
    runs = [(one, begin(strict_server, one, "never")) for one in sessions[:2]]
    try:
        refused = post(strict_server, sessions[2], "walk 1")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        others = path(sessions[2], user="bob")
        accepted = strict_server.client.post(others, json={"message": "never"})
        assert accepted.status_code == 200
        refused = strict_server.client.post(
            path(sessions[3], user="eve"), json={"message": "walk 1"}
        )
        assert refused.status_code == 429
        strict_server.client.delete(f"{others}/{accepted.json()['runId']}")
    finally:
        for session, run_id in runs:
            cancel(strict_server, session, run_id)
    assert begin(strict_server, sessions[2], "walk 1")


def test_a_session_with_a_run_in_flight_never_expires(servers, tmp_path):
    """Its message is stored before the run is acknowledged, so it is used."""
    server = servers[0]
    kept, empty = (server.create("walker", options={"ttl_minutes": 0.01}) for _ in range(2))
    begin(server, kept, f"gated 1 {tmp_path}")
    eventually(lambda: server.lifecycle(empty, "walker")["status"] == "expired")
    assert server.lifecycle(kept, "walker")["status"] == "used"
    (tmp_path / "1").touch()
    assert steps_of(read(server, kept)) == expected_steps(1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b"null", 422),
        (b'"walk"', 422),
        (b"\xff\xfe", 400),
        (b"{}", 422),
        (b'{"message": ""}', 422),
        (b'{"message": 7}', 422),
        (b'{"message": null}', 422),
        (b'{"message": "a", "query": "b"}', 422),
        (b'{"message": "a", "ifBusy": "maybe"}', 422),
        (b'{"message": "a", "streaming": "perhaps"}', 422),
        (b'{"message": "a", "stateDelta": [1]}', 422),
        (b'{"newMessage": "walk"}', 422),
        (b'{"newMessage": {"parts": "walk"}}', 422),
        (b'{"newMessage": {"parts": [{"text": 7}]}}', 422),
        (b'{"message": "nul \\u0000"}', 400),
        (b'{"message": "half \\ud800"}', 422),
        (b'{"message": "a", "stateDelta": {"n": NaN}}', 400),
        (b'{"message": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_a_malformed_body_is_refused_and_leaves_nothing(strict_server, body, status):
    session = new_session_id()
    answer = strict_server.client.post(
        path(session), content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    assert (
        strict_server.client.get(strict_server.path(session, "walker") + "/lifecycle").status_code
        == 404
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"appName": 7}', b'{"appName": "walker", "userId": "ada"}'],
)
def test_a_malformed_detached_body_is_refused_as_adk_does(strict_server, body):
    headers = {"Content-Type": "application/json"}
    plain = strict_server.client.post("/run_sse", content=body, headers=headers)
    detached = strict_server.client.post(
        "/run_sse", content=body, headers=headers | {"Lapse-Detach": "true"}
    )
    assert detached.status_code == plain.status_code == 422
    assert detached.json()["detail"]


def test_a_detached_run_needs_a_message_and_a_session(strict_server):
    def detached(session, **more):
        body = strict_server.run_body(session, "walk 1") | {"appName": "walker"} | more
        return strict_server.client.post("/run_sse", json=body, headers={"Lapse-Detach": "true"})

    assert detached("never-was").status_code == 404
    assert detached(strict_server.create("walker"), newMessage=None).status_code == 422
    assert detached(strict_server.create("walker"), ifBusy="maybe").status_code == 422
    assert detached(strict_server.create("walker"), appName="no-such-app").status_code in {
        400,
        404,
        500,
    }


def test_malformed_and_foreign_ids_are_refused(servers):
    server, session, other = servers[0], new_session_id(), new_session_id()
    run_id, foreign = begin(server, session, "walk 2"), begin(server, other, "walk 1")
    last = read(server, other)[-2].id
    own = next(event for event in read(server, session) if not event.is_partial).id

    def status_of(last_event_id=None, **params):
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        return server.client.get(path(session), headers=headers, params=params).status_code

    for bad in ("never", last, f"{foreign}~1", "~", "~3", "x" * 500, "é~1", f"{own}~x"):
        assert status_of(bad.encode()) == 400, bad
    assert status_of(runId="never") == status_of(runId=foreign) == 404
    assert status_of(own, runId=run_id) == 200
    assert status_of(last, runId=run_id) == 400
    assert status_of(f"{run_id}~end") == 204
    for way in (server.client.get, server.client.delete):
        assert way(f"{path(session)}/{foreign}").status_code == 404
        assert way(f"{path(session)}/never").status_code == 404
    assert server.client.get(path("never-was")).status_code == 404


@pytest.mark.parametrize(
    ("session", "field"), [("x" * 129, "session id"), ("%00", "path"), ("%20", "session id")]
)
def test_a_run_on_a_session_id_that_no_store_can_hold_is_refused(strict_server, session, field):
    answer = strict_server.client.post(path(session), json={"message": "walk 1"})
    assert answer.status_code == 400
    assert field in json.dumps(answer.json())


def test_a_run_of_an_unknown_app_is_refused(strict_server):
    answer = strict_server.client.post(path("s", app="no-such"), json={"message": "hello"})
    assert answer.status_code in {400, 404}, answer.text
