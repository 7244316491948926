"""A request for a run that is sent again with its idempotency key does nothing twice."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from faulty import walking
from run_reading import new_session_id, path
from serving import eventually

USER = "/apps/walker/users/ada/sessions"
ROUTES = ("/run", "/run_sse", "…/run")


@pytest.fixture(scope="module")
def server():
    with walking() as served:
        yield served


def created(server):
    session = new_session_id()
    assert server.client.post(USER, json={"sessionId": session}).status_code == 200
    return session


def send(server, route, session, text="walk 2", key="k-1", **more):
    """Send a message to a session."""
    headers = {} if key is None else {"Idempotency-Key": key}
    if route == "…/run":
        return server.client.post(path(session), json={"message": text} | more, headers=headers)
    body = {
        "appName": "walker",
        "userId": "ada",
        "sessionId": session,
        "newMessage": {"role": "user", "parts": [{"text": text}]},
    }
    return server.client.post(route, json=body | more, headers=headers)


def events(server, session):
    answer = server.client.get(f"{USER}/{session}")
    assert answer.status_code == 200, answer.text
    return answer.json()["events"]


def said(server, session):
    """Return what stands in a session, in order."""
    return [event["content"]["parts"][0]["text"] for event in events(server, session)]


def ended(server, session):
    """Wait until the session's runs have ended."""
    eventually(lambda: server.client.get(path(session)).text.rstrip().rpartition("event: ")[2])


WALKED = ["walk 2", "step 1", "step 2"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_repeat_after_the_end_gets_the_stored_answer(server, route):
    """Seen to fail with a key that is not looked up: the message stood twice."""
    session = created(server)
    first = send(server, route, session, "artifact")
    assert first.status_code == 200, first.text
    ended(server, session)
    again = send(server, route, session, "artifact")
    assert again.status_code == 200, again.text
    assert again.headers["Lapse-Run"] == first.headers["Lapse-Run"]
    if route == "…/run":
        assert again.json() == first.json() | {"status": "done"}
    else:
        assert again.content == first.content
        assert again.headers["content-type"] == first.headers["content-type"]
    assert said(server, session) == ["artifact", "drawn", "done"]


def test_a_repeated_stream_has_whole_events_in_place_of_partial_ones(server):
    session = created(server)
    first = frames(send(server, "/run_sse", session))
    again = frames(send(server, "/run_sse", session))
    assert [event for event in first if not event.get("partial")] == again
    assert len(first) == 6
    assert len(again) == 2


@pytest.mark.parametrize("route", ["/run", "/run_sse"])
def test_the_answer_is_that_of_adks_own_route(server, route):
    """Beside ids and times, which differ from run to run."""

    def plain(answer):
        found = answer.json() if route == "/run" else frames(answer)
        for event in found:
            assert event.pop("id")
            assert event.pop("timestamp")
            assert event.pop("invocationId")
        return found

    one, other = created(server), created(server)
    own = send(server, route, one, "artifact", key=None)
    keyed = send(server, route, other, "artifact")
    assert plain(keyed) == plain(own)
    assert keyed.headers["content-type"] == own.headers["content-type"]


def frames(answer):
    found = [line for line in answer.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in found)
    return [json.loads(line.removeprefix("data: ")) for line in found]


@pytest.mark.parametrize("route", ROUTES)
def test_another_body_with_the_same_key_is_refused(server, route):
    """Seen to fail with a key that is kept without a digest of its request."""
    session = created(server)
    send(server, route, session)
    ended(server, session)
    refused = send(server, route, session, "walk 3")
    assert refused.status_code == 422
    assert "another request" in refused.json()["detail"]
    other_route = send(server, next(one for one in ROUTES if one != route), session)
    assert other_route.status_code == 422
    assert said(server, session) == WALKED


@pytest.mark.parametrize("key", ["", "a b", "ä", "k" * 256])
def test_a_key_is_visible_ascii_of_at_most_255_characters(server, key):
    session = created(server)
    refused = send(server, "/run", session, key=key.encode())
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("Idempotency-Key: must be 1 to 255 visible ASCII")
    assert said(server, session) == []


def test_a_key_that_is_sent_twice_is_refused(server):
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    answer = server.client.post(path(created(server)), json={"message": "hi"}, headers=headers)
    assert answer.status_code == 400


def test_a_key_of_255_characters_is_taken(server):
    assert send(server, "/run", created(server), key="~" * 255).status_code == 200


def test_a_key_belongs_to_its_session_and_to_its_user(server):
    """Seen to fail with a digest of the header alone."""
    one, other = created(server), created(server)
    assert send(server, "/run", one).status_code == 200
    assert send(server, "/run", other).status_code == 200
    assert said(server, one) == said(server, other) == WALKED
    foreign = server.client.post(
        path(one, user="eve"), json={"message": "walk 2"}, headers={"Idempotency-Key": "k-1"}
    )
    assert foreign.status_code == 200
    assert said(server, one) == WALKED


@pytest.mark.parametrize("route", ROUTES)
def test_a_repeat_attaches_to_the_run_that_goes_on(server, route, tmp_path):
    """Seen to fail with a repeat that is a run of its own, which gets 409."""
    session = created(server)
    text = f"gated 1 {tmp_path}"
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(send, server, route, session, text) for _ in range(3)]
        eventually(lambda: said(server, session) == [text])
        refused = send(server, "…/run", session, "walk 1", key="k-2")
        assert refused.status_code == 409
        run_id = refused.json()["runId"]
        (tmp_path / "1").touch()
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["Lapse-Run"] for answer in answers} == {run_id}
    assert len({answer.content for answer in answers}) == 1
    ended(server, session)
    assert said(server, session) == [text, "step 1"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("done", [False, True], ids=["not stored", "stored"])
def test_a_message_in_doubt_is_repeated_once(server, route, done):
    """Seen to fail with events that get an id for each request: the message stood twice."""
    session = created(server)
    server.store.fail("append", done=done)
    first = send(server, route, session)
    if route == "/run_sse":
        assert "OutcomeUnknownError" if done else "StoreUnavailableError" in first.text
    else:
        assert first.status_code == 503
        assert first.headers["Retry-After"] == "1"
        assert "repeat the request with the same Idempotency-Key" in first.json()["detail"]
    again = eventually(lambda: settled(send(server, route, session)))
    assert again.status_code == 200, again.text
    ended(server, session)
    assert said(server, session) == WALKED
    (one,) = {event["invocationId"] for event in events(server, session)}
    assert one


def settled(answer):
    """Return an answer, unless the run before has not ended yet."""
    unsettled = answer.status_code == 503 or "UnavailableError" in answer.text
    return None if unsettled or "OutcomeUnknownError" in answer.text else answer


@pytest.mark.parametrize("route", ROUTES)
def test_an_agents_event_that_was_not_stored_lets_the_run_begin_again(server, route):
    session = created(server)
    server.store.fail("append", done=False, nth=2)
    send(server, route, session)
    ended(server, session)
    again = eventually(lambda: settled(send(server, route, session)))
    assert again.status_code == 200
    ended(server, session)
    assert said(server, session) == WALKED


def test_a_run_that_failed_after_it_spoke_is_not_run_again(server):
    session = created(server)
    first = send(server, "/run", session, "fail")
    again = send(server, "/run", session, "fail")
    assert first.status_code == again.status_code == 500
    assert first.json() == again.json()
    assert again.json()["stored"] == "yes"
    assert "do not send the message again" in again.json()["detail"]
    assert said(server, session) == ["fail", "step 1"]
    stream = send(server, "/run_sse", session, "fail", key="k-2")
    repeated = send(server, "/run_sse", session, "fail", key="k-2")
    assert stream.content == repeated.content
    assert frames(stream)[-1]["error"] == "RuntimeError: the walker fell"


def test_a_message_that_the_runner_refuses_is_refused_again_and_not_stored(server):
    session = created(server)
    for _ in range(2):
        refused = send(server, "/run", session, newMessage={"role": "user", "parts": []})
        assert refused.status_code == 400
        assert said(server, session) == []


def test_a_key_of_a_session_that_was_deleted_since_meets_no_other_session(server):
    """Seen to fail with keys that go with their session."""
    session = created(server)
    assert send(server, "…/run", session).status_code == 200
    ended(server, session)
    server.client.delete(f"{USER}/{session}")
    assert send(server, "…/run", session).status_code == 404
    assert server.client.get(f"{USER}/{session}").status_code == 404
    server.client.post(USER, json={"sessionId": session})
    assert send(server, "…/run", session).status_code == 404
    assert said(server, session) == []
    assert send(server, "…/run", session, key="k-2").status_code == 200


def test_an_unknown_session_is_404_with_a_key_too(server):
    for route in ("/run", "/run_sse"):
        assert send(server, route, new_session_id()).status_code == 404


def test_a_request_without_a_key_asks_the_store_for_nothing_more(server):
    """Seen to fail with a lookup of a key that was not sent."""
    session = created(server)
    server.store.calls.clear()
    assert send(server, "/run", session, key=None).status_code == 200
    assert not {"known", "begin_once", "begin_run"} & set(server.store.calls)
    detached = created(server)
    server.store.calls.clear()
    assert send(server, "…/run", detached, key=None).status_code == 200
    assert not {"known", "begin_once"} & set(server.store.calls)
