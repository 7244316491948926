"""ADK's own requests for sessions, and the record of a session's life."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest

from serving import USER

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def moment(text):
    assert MOMENT.fullmatch(text)
    return datetime.fromisoformat(text)


def test_adks_create_request_creates_a_session(server):
    answer = server.client.post(server.path(), json={"state": {"k": 1}})
    assert answer.status_code == 200
    session = answer.json()
    assert set(session) == {"id", "appName", "userId", "state", "events", "lastUpdateTime"}
    assert (session["appName"], session["userId"]) == ("parrot", USER)
    assert (session["state"], session["events"]) == ({"k": 1}, [])
    assert server.client.get(server.path(session["id"])).json() == session


def test_a_session_can_be_created_without_a_body(server):
    answer = server.client.post(server.path())
    assert answer.status_code == 200
    record = server.lifecycle(answer.json()["id"])
    assert record["ttlMinutes"] == 30
    assert record["metadata"] == {"kind": "canonical-session", "backend_created": True}


def test_the_older_create_request_with_the_id_in_its_path_works_too(server):
    answer = server.client.post(server.path("by-path"), json={"k": 1})
    assert (answer.status_code, answer.json()["state"]) == (200, {"k": 1})
    assert server.client.post(server.path("by-path"), json={}).status_code == 409
    assert server.lifecycle("by-path")["metadata"]["backend_created"] is False


@pytest.mark.parametrize("name", ["ttl_minutes", "ttlMinutes"])
def test_the_lapse_options_of_a_create_request_choose_ttl_and_metadata(server, name):
    options = {name: 5, "metadata": {"page": "home", "deep": {"a": [1, None]}}}
    record = server.lifecycle(server.create(options=options))
    assert record["ttlMinutes"] == 5
    assert record["metadata"]["page"] == "home"
    assert record["metadata"]["deep"] == {"a": [1, None]}


def test_the_record_of_a_waiting_session_has_the_documented_shape(server):
    session_id = server.create(options={"ttl_minutes": 7.5})
    record = server.lifecycle(session_id)
    created_at, expires_at = moment(record["createdAt"]), moment(record["expiresAt"])
    assert expires_at == created_at + timedelta(minutes=7.5)
    assert moment(record["restorableUntil"]) == created_at + timedelta(hours=24)
    assert created_at <= moment(record["serverTime"]) < expires_at
    assert record == {
        "appName": "parrot",
        "userId": USER,
        "sessionId": session_id,
        "status": "waiting",
        "hasMessages": False,
        "createdAt": record["createdAt"],
        "firstMessageAt": None,
        "ttlMinutes": 7.5,
        "expiresAt": record["expiresAt"],
        "expiredAt": None,
        "restorableUntil": record["restorableUntil"],
        "resurrections": 0,
        "metadata": {"kind": "canonical-session", "backend_created": True},
        "archivedAt": None,
        "pinned": False,
        "onHold": False,
        "serverTime": record["serverTime"],
    }


def test_the_record_of_a_used_session_says_when_it_was_first_used_and_no_deadline(server):
    session_id = server.create(sessionId="used-record")
    assert server.run(session_id).status_code == 200
    record = server.lifecycle(session_id)
    assert (record["status"], record["hasMessages"]) == ("used", True)
    assert moment(record["firstMessageAt"]) >= moment(record["createdAt"])
    assert (record["expiresAt"], record["expiredAt"], record["restorableUntil"]) == (None,) * 3
    assert record["ttlMinutes"] == 30


def test_later_messages_do_not_change_the_time_of_the_first_message(server):
    session_id = server.create()
    server.run(session_id)
    first = server.lifecycle(session_id)["firstMessageAt"]
    for _ in range(3):
        assert server.run(session_id).status_code == 200
    assert server.lifecycle(session_id)["firstMessageAt"] == first


def test_adk_does_not_find_an_expired_session_and_its_owner_can_restore_it(server):
    session_id = server.short_lived(state={"k": 1})
    assert server.client.get(server.path(session_id)).status_code == 404
    listed = server.client.get(server.path()).json()
    assert session_id not in {session["id"] for session in listed}
    patched = server.client.patch(server.path(session_id), json={"stateDelta": {"k": 2}})
    assert patched.status_code == 404

    record = server.lifecycle(session_id)
    assert (record["status"], record["hasMessages"]) == ("expired", False)
    expired_at, restorable = moment(record["expiredAt"]), moment(record["restorableUntil"])
    assert moment(record["createdAt"]) < expired_at <= moment(record["serverTime"]) < restorable


def test_a_patch_of_state_by_adks_route_is_not_a_message(server):
    session_id = server.create(state={"k": 1})
    answer = server.client.patch(server.path(session_id), json={"stateDelta": {"k": 2}})
    assert answer.json()["state"] == {"k": 2}
    assert server.lifecycle(session_id)["status"] == "waiting"
    assert server.client.get(server.path(session_id)).json()["state"] == {"k": 2}


def test_a_session_created_with_a_message_is_used_from_the_start(server):
    event = {"author": "user", "content": {"role": "user", "parts": [{"text": "restored"}]}}
    session_id = server.create(events=[event])
    assert server.lifecycle(session_id)["status"] == "used"
    (stored,) = server.client.get(server.path(session_id)).json()["events"]
    assert stored["content"]["parts"] == [{"text": "restored"}]


def test_the_owner_of_a_deleted_session_does_not_find_it_either(server):
    session_id = server.create()
    assert server.client.delete(server.path(session_id)).status_code == 200
    assert server.client.delete(server.path(session_id)).status_code == 200
    for path in ("", "/lifecycle"):
        assert server.client.get(server.path(session_id) + path).status_code == 404
    assert server.run(session_id).status_code == 404


def test_an_expired_session_may_be_deleted_for_good(server):
    session_id = server.short_lived()
    server.client.delete(server.path(session_id))
    assert server.client.get(server.path(session_id) + "/lifecycle").status_code == 404
    answer = server.client.post(server.path(session_id) + "/lifecycle/resurrect")
    assert answer.status_code == 404


# PATCH, extend and resurrect.


def patch(server, session_id, **body):
    return server.client.patch(server.path(session_id) + "/lifecycle", json=body)


def test_metadata_merges_by_its_top_level_keys(server):
    session_id = server.create(options={"metadata": {"a": {"x": 1}, "b": 1}})
    answer = patch(server, session_id, metadata={"a": {"y": 2}, "c": None})
    assert answer.status_code == 200
    merged = {"a": {"y": 2}, "b": 1, "c": None}
    assert answer.json()["metadata"].items() >= merged.items()
    assert server.lifecycle(session_id)["metadata"] == answer.json()["metadata"]


def test_metadata_of_used_and_of_expired_sessions_may_change_too(server):
    used, expired = server.create(), server.short_lived()
    server.run(used)
    for session_id, status in ((used, "used"), (expired, "expired")):
        answer = patch(server, session_id, metadata={"rated": 5})
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["metadata"]["rated"]) == (status, 5)


@pytest.mark.parametrize("name", ["ttlMinutes", "ttl_minutes"])
def test_a_new_ttl_counts_from_the_request(server, name):
    session_id = server.create(options={"ttl_minutes": 30})
    record = patch(server, session_id, **{name: 2}).json()
    assert record["ttlMinutes"] == 2
    assert moment(record["expiresAt"]) - moment(record["serverTime"]) <= timedelta(minutes=2)
    assert moment(record["expiresAt"]) > moment(record["createdAt"]) + timedelta(minutes=2)


def test_a_ttl_is_refused_for_sessions_that_are_not_waiting(server):
    used, expired = server.create(), server.short_lived()
    server.run(used)
    for session_id, status in ((used, "used"), (expired, "expired")):
        answer = patch(server, session_id, ttlMinutes=5, metadata={"half": "done"})
        assert answer.status_code == 409
        assert status in answer.json()["detail"]
        assert "half" not in server.lifecycle(session_id)["metadata"]


def test_extending_gives_a_fresh_ttl_and_never_shortens(server):
    session_id = server.create(options={"ttl_minutes": 5})
    before = server.lifecycle(session_id)["expiresAt"]
    answer = server.client.post(server.path(session_id) + "/lifecycle/extend")
    assert answer.status_code == 200
    assert answer.json()["expiresAt"] > before
    assert answer.json()["status"] == "waiting"


def test_extending_stops_at_the_horizon(server):
    session_id = server.create(options={"ttl_minutes": 48 * 60})
    before = server.lifecycle(session_id)
    answer = server.client.post(server.path(session_id) + "/lifecycle/extend")
    assert answer.json()["expiresAt"] == before["expiresAt"]


def test_only_a_waiting_session_can_be_extended(server):
    used, expired = server.create(), server.short_lived()
    server.run(used)
    for session_id in (used, expired):
        answer = server.client.post(server.path(session_id) + "/lifecycle/extend")
        assert answer.status_code == 409
        assert session_id not in answer.text


def test_an_expired_session_is_resurrected_with_its_state_and_a_fresh_ttl(server):
    session_id = server.short_lived(state={"draft": "hel"})
    patched = server.client.post(server.path(session_id) + "/lifecycle/resurrect")
    assert patched.status_code == 200
    record = patched.json()
    assert record["resurrections"] == 1
    assert (record["status"], record["expiredAt"]) == ("waiting", None)
    assert record["expiresAt"] > record["createdAt"]


def test_resurrecting_a_living_session_changes_nothing(server):
    waiting, used = server.create(), server.create()
    server.run(used)
    for session_id in (waiting, used):
        before = server.lifecycle(session_id)
        answer = server.client.post(server.path(session_id) + "/lifecycle/resurrect")
        assert answer.status_code == 200
        assert answer.json() | {"serverTime": ""} == before | {"serverTime": ""}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/lifecycle", None),
        ("PATCH", "/lifecycle", {"metadata": {"a": 1}}),
        ("PATCH", "/lifecycle", {"ttlMinutes": 5}),
        ("POST", "/lifecycle/extend", None),
        ("POST", "/lifecycle/resurrect", None),
    ],
)
def test_every_route_answers_404_for_an_unknown_session(server, method, path, body):
    answer = server.client.request(method, server.path("never-was") + path, json=body)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Session not found"})
