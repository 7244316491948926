"""What an answer says of a message when the store does not answer."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from adk_versions import since_adk
from faulty import walking
from run_reading import new_session_id, path


@pytest.fixture(scope="module")
def server():
    with walking() as served:
        yield served


def created(server):
    return server.client.post("/apps/walker/users/ada/sessions", json={}).json()["id"]


def run(server, session, text="walk 1", route="/run"):
    body = {
        "appName": "walker",
        "userId": "ada",
        "sessionId": session,
        "newMessage": {"role": "user", "parts": [{"text": text}]},
    }
    return server.client.post(route, json=body)


def stored(server, session):
    answer = server.client.get(f"/apps/walker/users/ada/sessions/{session}")
    return [event["author"] for event in answer.json()["events"]]


def refusal(answer):
    """Return what a 503 says, checked for what every one of them has."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "1"
    told = answer.json()
    assert told["detail"].endswith(".")
    assert "Error" not in told["detail"]
    return told


def test_a_message_that_is_not_stored_may_be_sent_again(server):
    session = created(server)
    server.store.fail("append", done=False)
    told = refusal(run(server, session))
    assert told["stored"] == "no"
    assert "try again" in told["detail"]
    assert stored(server, session) == []


def test_a_message_in_doubt_is_not_called_safe_to_repeat(server):
    """Seen to fail with the sentence that asked clients to repeat, which stored it twice."""
    session = created(server)
    server.store.fail("append", done=True)
    told = refusal(run(server, session))
    assert told["stored"] == "unknown"
    assert "look before you send it again" in told["detail"]
    assert stored(server, session) == ["user"]


@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize("done", [False, True])
def test_a_stored_message_is_called_stored_where_the_agents_event_is_not(server, done, space):
    """Seen to fail with an answer that knows only the last append.

    Also seen to fail with appends looked for by the id as it was sent, with white space.
    """
    session = created(server)
    server.store.fail("append", done=done, nth=2)
    told = refusal(run(server, session + space))
    assert told["stored"] == "yes"
    assert "do not send the message again" in told["detail"]
    assert stored(server, session) == ["user", "walker"][: 1 + done]


@pytest.mark.parametrize("nth", [1, 2])
@since_adk("2.4", "an error in a stream has no type")
def test_a_stream_says_the_same_by_the_type_of_its_error(server, nth):
    session = created(server)
    server.store.fail("append", done=False, nth=nth)
    *_, last = run(server, session, route="/run_sse").text.strip().split("\n\n")
    kind = json.loads(last.removeprefix("data: "))["error_details"]["error_type"]
    assert kind == {1: "StoreUnavailableError", 2: "AnswerLostError"}[nth]


def test_what_only_reads_says_nothing_of_storing(server):
    session = created(server)
    server.store.fail("read", done=False)
    answer = server.client.get(f"/apps/walker/users/ada/sessions/{session}")
    assert "stored" not in refusal(answer)


@pytest.mark.parametrize(("done", "word"), [(False, "no"), (True, "unknown")])
@since_adk("2.4", "an error in a stream has no type")
def test_a_detached_run_in_doubt_answers_like_everything_else(server, done, word):
    """It does not wait until its end is recorded, and shows no name of an error.

    Seen to fail with `begun` set only when the end of the run was recorded, and with ADK's error
    as the answer.
    """
    session = new_session_id()
    held = asyncio.Event()
    server.store.slow["end_run"] = held
    server.store.fail("append", done=done)
    try:
        told = refusal(server.client.post(path(session), json={"message": "walk 1"}))
    finally:
        del server.store.slow["end_run"]
        server.loop.call_soon_threadsafe(held.set)
    assert told["stored"] == word


def test_of_two_first_messages_at_once_one_is_stored_and_the_other_gets_409(server):
    """Seen to fail with an append that does not ask for the revision that its writer saw."""
    session = created(server)
    server.store.together("read", 2)
    with ThreadPoolExecutor(2) as threads:
        answers = [*threads.map(lambda text: run(server, session, text), ("walk 1", "walk 2"))]
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (refused,) = (answer for answer in answers if answer.status_code == 409)
    assert "modified in storage" in refused.json()["detail"]
    assert stored(server, session).count("user") == 1
