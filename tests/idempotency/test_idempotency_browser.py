"""The browser's module sends keys, and repeats a request until it is answered."""

import json

import pytest

from faulty import walking
from run_reading import new_session_id, path
from serving import eventually

pytestmark = pytest.mark.long

USER = "/apps/walker/users/ada/sessions"


@pytest.fixture(scope="module")
def server():
    with walking() as served:
        yield served


@pytest.fixture
def page(server, browser):
    page = browser.new_page()
    page.goto(f"{server.url}/lapse/client.js")
    yield page
    page.close()


class Wire:
    """What becomes of the first requests to a path; all are noted, and the others go through."""

    def __init__(self, page, pattern, *fates):
        self.keys, self._fates = [], list(fates)
        page.route(pattern, self._decide)

    def _decide(self, route):
        self.keys.append(route.request.headers.get("idempotency-key"))
        fate = self._fates.pop(0) if self._fates else None
        if fate is None:
            route.continue_()
        elif fate == "lost":
            route.fetch()  # it is done, and nobody hears of it
            route.abort()
        elif fate == "broken":
            route.abort()
        else:
            headers = {"Retry-After": fate[1]} if len(fate) > 1 else {}
            route.fulfill(status=fate[0], headers=headers, json={"detail": "not now"})


CALL = """
async ([name, options]) => {
  const client = await import("/lapse/client.js");
  try {
    return {value: await client[name]({appName: "walker", userId: "ada", ...options})};
  } catch (error) {
    return {error: error.name, status: error.status ?? null};
  }
}
"""


def call(page, name, **options):
    return page.evaluate(CALL, [name, options])


def said(server, session):
    events = server.client.get(f"{USER}/{session}").json()["events"]
    return [event["content"]["parts"][0]["text"] for event in events]


def test_a_message_whose_answers_are_lost_stands_once(server, page):
    """Seen to fail with a key for each attempt, and with none."""
    session = new_session_id()
    wire = Wire(page, "**/run", "broken", "lost", (503, "0.1"), "lost", (429,))
    found = call(page, "sendMessage", sessionId=session, message="walk 2")["value"]
    assert len(wire.keys) == 6
    assert len({*wire.keys}) == 1
    eventually(lambda: said(server, session) == ["walk 2", "step 1", "step 2"])
    record = server.client.get(f"{path(session)}/{found['runId']}")
    assert record.json()["status"] == "done"
    other = call(page, "sendMessage", sessionId=session, message="walk 1")["value"]
    assert other["runId"] != found["runId"]
    assert wire.keys[-1] != wire.keys[0]


def test_a_creation_whose_answer_is_lost_makes_one_session(server, page):
    wire = Wire(page, "**/sessions", "lost")
    before = len(server.client.get(USER).json())
    made = call(page, "createSession", state={"a": 1})["value"]
    assert made["state"] == {"a": 1}
    assert len({*wire.keys}) == 1
    assert len(wire.keys) == 2
    assert len(server.client.get(USER).json()) == before + 1


def test_repeats_are_bounded_and_then_say_what_the_server_said(page):
    """Seen to fail with a client that repeats for ever."""
    wire = Wire(page, "**/run", *[(503, "0.01")] * 9)
    options = {"sessionId": new_session_id(), "message": "walk 1", "repeats": 2}
    assert call(page, "sendMessage", **options) == {"error": "LapseError", "status": 503}
    assert len(wire.keys) == 3


@pytest.mark.parametrize("fate", [(422,), (409,), (404,), (400,), (500,), (429, "3600")])
def test_an_answer_is_not_asked_for_again(page, fate):
    wire = Wire(page, "**/run", fate)
    found = call(page, "sendMessage", sessionId=new_session_id(), message="walk 1")
    assert found == {"error": "LapseError", "status": fate[0]}
    assert len(wire.keys) == 1


def test_fetch_once_is_fetch_with_a_key(server, page):
    session = server.client.post(USER, json={}).json()["id"]
    wire = Wire(page, "**/run_sse", "lost")
    body = {
        "appName": "walker",
        "userId": "ada",
        "sessionId": session,
        "newMessage": {"role": "user", "parts": [{"text": "artifact"}]},
    }
    text = page.evaluate(
        """async (body) => {
          const { fetchOnce } = await import("/lapse/client.js");
          const headers = { "Content-Type": "application/json" };
          const answer = await fetchOnce("/run_sse", { method: "POST", headers, body });
          return answer.text();
        }""",
        json.dumps(body),
    )
    assert text.count("data: ") == 3
    assert wire.keys[0]
    assert wire.keys[0] == wire.keys[1]
    assert said(server, session) == ["artifact", "drawn", "done"]
