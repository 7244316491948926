"""ADK's list of sessions with `status` and `lifecycle`: over HTTP, in Python, by client.js."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright._impl._driver import compute_driver_executable

from adk_builders import APP, USER, create_session, message_event
from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from serving import eventually

CLIENT = Path(__file__).parents[2] / "clients/js/client.js"
COUNT = iter(range(1_000_000))


@pytest.fixture
def chats(server):
    """Return a user's list of sessions: one of each status, as that user's pages make them."""
    return Chats(server, f"https://idp.test/größe/{next(COUNT)}")


class Chats:
    def __init__(self, server, user):
        self._server = server
        self.user = user
        self.path = f"/apps/parrot/users/{quote(user, safe='')}/sessions"
        metadata = {"page": "/café", "deep": {"a": [1, None]}}
        self.create("gone", options={"ttl_minutes": 0.001}, state={"draft": "größer"})
        self.create("said", options={"metadata": metadata}, state={"user:name": "Zoë"})
        body = server.run_body("said", "hello") | {"userId": user}
        assert server.client.post("/run", json=body).status_code == 200
        self.create("waits", options={"ttlMinutes": 60})
        patched = server.client.patch(f"{self.path}/waits", json={"stateDelta": {"theme": "dark"}})
        assert patched.status_code == 200
        eventually(lambda: self.is_swept("gone"))

    def create(self, name, **body):
        answer = self._server.client.post(self.path, json={"sessionId": name, **body})
        assert answer.status_code == 200, answer.text

    def is_swept(self, name):
        """Return whether a sweep has expired the session; it says later than the deadline when."""
        record = self.record(name)
        return record["status"] == "expired" and record["expiredAt"] > record["expiresAt"]

    def record(self, name):
        return self._server.client.get(f"{self.path}/{name}/lifecycle").json()

    def get(self, **query):
        return self._server.client.get(self.path, params=query)

    def ids(self, **query):
        return [one["id"] for one in self.get(**query).json()]


def test_each_status_is_listed_alone_and_with_others_in_adks_order(chats):
    """Seen to fail with the parameters left to ADK's route."""
    for status in ("used", "waiting", "expired"):
        (name,) = chats.ids(status=status)
        assert chats.record(name)["status"] == status
    assert chats.ids(status="used,waiting") == chats.ids() == ["said", "waits"]
    assert chats.ids(status="waiting, expired") == ["gone", "waits"]
    assert chats.ids(status=["expired", "used"]) == ["gone", "said"]
    assert chats.ids(status="orphan") == []


def test_each_session_comes_with_the_record_that_its_lifecycle_route_answers(chats):
    found = chats.get(status="used,waiting,expired", lifecycle="true").json()
    assert [one["id"] for one in found] == ["gone", "said", "waits"]
    for one in found:
        record = one.pop("lifecycle")
        alone = chats.record(one["id"])
        assert list(record) == list(alone)
        assert record | {"serverTime": ""} == alone | {"serverTime": ""}
        assert record["serverTime"] <= alone["serverTime"]
    plain = chats.get().json()
    assert found[1:] == plain
    assert plain[0]["state"]["user:name"] == "Zoë"


def test_without_the_parameters_the_list_is_adks_to_the_byte(chats):
    plain = chats.get()
    for query in ({"lifecycle": "false"}, {"status": "used,waiting"}):
        answer = chats.get(**query)
        assert answer.content == plain.content
        assert answer.headers["content-type"] == plain.headers["content-type"]
    assert chats.get(unknown="1").content == plain.content


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"status": "usde"}, "be some of waiting, used, expired, orphan, archived, with commas"),
        ({"status": "usde"}, "status: must"),
        ({"status": "usde"}, "not 'usde'"),
        ({"status": "used;waiting"}, "not 'used;waiting'"),
        ({"status": "Used"}, "not 'Used'"),
        ({"status": ""}, "not ''"),
        ({"status": "used,"}, "not ''"),
        ({"status": "used", "lifecycle": "yes"}, "lifecycle: must be true or false, not 'yes'"),
    ],
)  # fmt: skip
def test_what_is_no_status_is_refused_by_its_name(chats, query, told):
    answer = chats.get(**query)
    assert answer.status_code == 400
    assert told in answer.json()["detail"]


def test_sessions_of_evaluations_are_left_out_as_adk_leaves_them_out(chats):
    """Seen to fail without the filter."""
    chats.create("adk-eval-session-1")
    chats.create("___eval___session___1")
    assert chats.ids(status="waiting") == ["waits"]


def test_the_browsers_client_lists_the_same(server, chats):
    """Seen to fail with the statuses sent as one parameter each, without its name."""
    program = f"""
      import {{ listSessions, LapseError }} from {json.dumps(CLIENT.as_uri())};
      const who = {{ baseUrl: {json.dumps(server.url)}, appName: "parrot", userId: {json.dumps(chats.user)} }};
      const told = [
        await listSessions(who),
        await listSessions({{ ...who, status: ["used", "expired"] }}),
        await listSessions({{ ...who, status: "waiting", lifecycle: false }}),
        await listSessions({{ ...who, status: "odd" }}).catch((error) => [error instanceof LapseError, error.status]),
      ];
      console.log(JSON.stringify(told));
    """  # noqa: E501 - JavaScript
    node = compute_driver_executable()[0]
    command = [node, "--input-type=module", "-e", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    every, some, bare, refused = json.loads(done.stdout)
    assert [(one["id"], one["lifecycle"]["status"]) for one in every] == [
        ("said", "used"), ("waits", "waiting"),
    ]  # fmt: skip
    assert [one["id"] for one in some] == ["gone", "said"]
    assert [(one["id"], "lifecycle" in one) for one in bare] == [("waits", False)]
    assert refused == [True, 400]


async def test_the_service_lists_sessions_with_their_records(lapse):
    session = await create_session(lapse, session_id="a", metadata={"page": "x"})
    await lapse.append_event(session, message_event(timestamp=1000.0))
    await create_session(lapse, session_id="b", state={"k": 1})
    await create_session(lapse, session_id="c")
    await lapse.expire(SessionKey(APP, USER, "c"))
    who = {"app_name": APP, "user_id": USER}
    listed = await lapse.list_with_lifecycle(**who)
    assert [one.session for one in listed] == (await lapse.list_sessions(**who)).sessions
    assert [one.lifecycle.has_messages for one in listed] == [True, False]
    assert listed[0].lifecycle.metadata["page"] == "x"
    (expired,) = await lapse.list_with_lifecycle(**who, status=["expired"])
    assert expired.session.id == "c"
    assert await lapse.list_with_lifecycle(**who, status=[]) == []
    assert await lapse.list_with_lifecycle(app_name=APP, user_id="nul\0") == []
    with pytest.raises(InvalidValueError, match="not 'usde'"):
        await lapse.list_with_lifecycle(**who, status=["usde"])
