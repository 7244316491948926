"""A creation that is sent again with its idempotency key makes one session."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from faulty import walking
from run_reading import new_session_id


@pytest.fixture(scope="module")
def server():
    with walking() as served:
        yield served


@pytest.fixture
def user(server, request):
    """A user of the test's own."""
    return f"/apps/walker/users/{request.node.name[:100]}/sessions"


def create(server, user, key="k-1", **body):
    headers = {} if key is None else {"Idempotency-Key": key}
    return server.client.post(user, json=body, headers=headers)


def sessions(server, user):
    return [session["id"] for session in server.client.get(user).json()]


@pytest.mark.parametrize("named", [False, True], ids=["without an id", "with an id"])
def test_a_repeated_creation_returns_the_session_it_has_made(server, user, named):
    """Seen to fail with a creation that is not looked up: two sessions, or 409."""
    body = {"state": {"a": 1, "user:b": 2}} | ({"sessionId": new_session_id()} if named else {})
    first = create(server, user, **body)
    again = create(server, user, **body)
    assert first.status_code == again.status_code == 200, again.text
    assert again.content == first.content
    assert sessions(server, user) == [first.json()["id"]]


def test_a_creation_whose_answer_is_lost_is_repeated_once(server, user):
    server.store.fail("create_once", done=True)
    lost = create(server, user)
    assert lost.status_code == 503
    assert lost.json()["stored"] == "unknown"
    assert "same Idempotency-Key" in lost.json()["detail"]
    again = create(server, user)
    assert sessions(server, user) == [again.json()["id"]]


def test_creations_at_once_with_one_key_make_one_session(server, user):
    """Seen to fail with a lookup that is not in the transaction of the creation."""
    server.store.together("created_before", 4)
    with ThreadPoolExecutor(4) as threads:
        answers = [*threads.map(lambda _: create(server, user), range(4))]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["id"] for answer in answers} == {*sessions(server, user)}
    assert len(sessions(server, user)) == 1


def test_an_id_of_a_session_that_another_request_has_made_is_409(server, user):
    """Seen to fail with a repeat that is recognised by the session's id alone."""
    name = new_session_id()
    assert create(server, user, key=None, sessionId=name).status_code == 200
    for _ in range(2):
        assert create(server, user, sessionId=name).status_code == 409
    assert create(server, user, sessionId=new_session_id()).status_code == 200


def test_another_creation_with_the_same_key_is_refused(server, user):
    create(server, user)
    refused = create(server, user, state={"a": 2})
    assert refused.status_code == 422
    assert "another request" in refused.json()["detail"]
    assert len(sessions(server, user)) == 1


def test_a_key_belongs_to_its_user(server, user):
    """Seen to fail with a digest without the user."""
    mine, theirs = (
        create(server, user).json(),
        create(server, user.replace("/sessions", "-2/sessions")).json(),
    )
    assert mine["id"] != theirs["id"]
    assert theirs["userId"] != mine["userId"]


def test_a_session_that_was_deleted_is_not_made_again(server, user):
    """Seen to fail with keys that go with their session."""
    made = create(server, user).json()["id"]
    server.client.delete(f"{user}/{made}")
    assert create(server, user).status_code == 404
    assert sessions(server, user) == []
    assert create(server, user, key="k-2").status_code == 200


def test_a_repeat_returns_the_session_as_it_is_now(server, user):
    made = create(server, user).json()["id"]
    server.client.patch(f"{user}/{made}", json={"stateDelta": {"a": 1}})
    assert create(server, user).json() == server.client.get(f"{user}/{made}").json()


def events(*texts, ids=()):
    given = [{"id": one} for one in ids] or [{}] * len(texts)
    return [
        one | {"author": "user", "content": {"role": "user", "parts": [{"text": text}]}}
        for text, one in zip(texts, given, strict=True)
    ]


@pytest.mark.parametrize("ids", [(), ("a", "b", "c")], ids=["without ids", "with ids"])
@pytest.mark.parametrize("done", [False, True])
def test_events_of_a_creation_are_appended_once(server, user, ids, done):
    """The second append fails, and a repeat appends what is missing.

    Seen to fail with events that get an id for each request.
    """
    body = {"events": events("one", "two", "three", ids=ids)}
    server.store.fail("append", done=done, nth=2)
    assert create(server, user, **body).status_code == 503
    again = create(server, user, **body)
    assert again.status_code == 200, again.text
    for found in (again.json(), server.client.get(f"{user}/{again.json()['id']}").json()):
        said = [event["content"]["parts"][0]["text"] for event in found["events"]]
        assert said == ["one", "two", "three"]
        if ids:
            assert tuple(event["id"] for event in found["events"]) == ids
    assert create(server, user, **body).json() == again.json()
    assert len(sessions(server, user)) == 1


def test_a_session_that_is_returned_in_place_of_a_new_one_is_returned_again(server, user):
    waiting = create(server, user, key=None).json()["id"]
    body = {"options": {"reuse": True}}
    assert create(server, user, **body).json()["id"] == waiting
    newer = create(server, user, key=None).json()["id"]
    assert create(server, user, **body).json()["id"] == waiting
    assert create(server, user, key="k-2", **body).json()["id"] == newer


@pytest.mark.parametrize("key", ["", "a b", "k" * 256])
def test_a_key_is_visible_ascii_of_at_most_255_characters(server, user, key):
    assert create(server, user, key=key).status_code == 400
    assert sessions(server, user) == []


def test_a_creation_without_a_key_asks_the_store_for_nothing_more(server, user):
    server.store.calls.clear()
    create(server, user, key=None)
    assert "create" in server.store.calls
    assert not {"created_before", "create_once", "keep_created"} & set(server.store.calls)


def test_a_user_has_so_many_keys_at_a_time():
    """Seen to fail without the count."""
    with walking(keys_per_user=2) as server:
        user = "/apps/walker/users/ann/sessions"
        assert [create(server, user, key=f"k-{n}").status_code for n in range(2)] == [200, 200]
        refused = create(server, user, key="k-2")
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) > 0
        assert "2 idempotency keys" in refused.json()["detail"]
        run = server.client.post(
            f"{user}/s/run", json={"message": "walk 1"}, headers={"Idempotency-Key": "k-3"}
        )
        assert run.status_code == 429
        assert create(server, user, key="k-0").status_code == 200
        assert create(server, user, key=None).status_code == 200
        assert create(server, "/apps/walker/users/bob/sessions").status_code == 200
