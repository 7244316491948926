"""A request's body is parsed once, and validated off the event loop where it is large."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from google.genai import types

from lapse import Lapse, ServerOptions
from lapse.settings import Settings
from run_reading import AGENTS
from served import Served

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

SESSIONS = "/apps/walker/users/ann/sessions"
MARK = "only-in-this-body"


@pytest.fixture(scope="module")
def served():
    lapse = Lapse("sqlite:///:memory:", Settings(waiting_per_user=0, creates_per_user=0))
    app = lapse.app(Path(AGENTS), port=0, server=ServerOptions(artifact_service_uri="memory://"))
    with Served(app) as running:
        yield running


@pytest.fixture
def parsed(monkeypatch):
    """Return a list that gets every text with the mark that Python's `json` parses."""
    texts = []
    plain = json.JSONDecoder.decode

    def decode(self, text, *more):
        if MARK in text:
            texts.append(text)
        return plain(self, text, *more)

    monkeypatch.setattr(json.JSONDecoder, "decode", decode)
    return texts


def session_of(served):
    return served.client.post(SESSIONS, json={}).json()["id"]


def run_of(session, **more):
    said = {"role": "user", "parts": [{"text": MARK}]}
    return {"appName": "walker", "userId": "ann", "sessionId": session, "newMessage": said} | more


@pytest.mark.parametrize(
    "asked",
    [
        ("POST", "/run", run_of, {}),
        ("POST", "/run_sse", run_of, {}),
        ("POST", "/run_sse", run_of, {"Lapse-Detach": "true"}),
        ("POST", f"{SESSIONS}/{{id}}/run", lambda _: {"message": MARK}, {}),
        ("POST", SESSIONS, lambda _: {"state": {"k": MARK}}, {}),
        ("PATCH", f"{SESSIONS}/{{id}}", lambda _: {"stateDelta": {"k": MARK}}, {}),
        ("PATCH", f"{SESSIONS}/{{id}}/lifecycle", lambda _: {"metadata": {"k": MARK}}, {}),
        (
            "POST",
            f"{SESSIONS}/{{id}}/artifacts",
            lambda _: {"filename": "f", "artifact": {"text": MARK}},
            {},
        ),
    ],
    ids=["run", "sse", "detached", "of-session", "create", "patch", "metadata", "artifact"],
)
def test_a_body_is_parsed_once(served, parsed, asked):
    """Seen to fail with routes that get FastAPI's own request: twice."""
    method, path, body, headers = asked
    session = session_of(served)
    sent = json.dumps(body(session))
    headers = headers | {"Content-Type": "application/json"}
    url = path.replace("{id}", session)
    answer = served.client.request(method, url, content=sent, headers=headers)
    assert answer.status_code == 200, answer.text
    # What is stored of it may be read again, but is another text.
    assert parsed.count(sent) == 1


@pytest.mark.parametrize("body", ["{", '{"k": %s}' % ("9" * 5000), '"text"', "[1]"], ids=range(4))
@pytest.mark.parametrize("path", [SESSIONS, "/run", f"{SESSIONS}/s/run"])
def test_what_is_no_json_is_refused_in_fastapis_words(served, path, body):
    headers = {"Content-Type": "application/json"}
    answer = served.client.post(path, content=body, headers=headers)
    assert answer.status_code == (400 if "9" in body else 422)
    if body == "{":
        (fault,) = answer.json()["detail"]
        assert fault["type"] == "json_invalid"
        assert fault["loc"] == ["body", 1]


@pytest.mark.parametrize(
    "body",
    [
        lambda session: run_of(session, newMessage={"parts": [{"text": "a"}] * 300}),
        lambda session: run_of(session, newMessage={"parts": [{"text": "a" * 70_000}]}),
        lambda session: run_of(session, newMessage={"parts": [{"zz": 1}] * 300}),
    ],
    ids=["values", "bytes", "faults"],
)
@pytest.mark.parametrize("detached", [True, False])
def test_a_large_body_is_validated_off_the_loop(served, monkeypatch, body, detached):
    """Seen to fail without `validator_of`, and without the thread in `validated`."""
    used = []
    made = types.Part.__init__

    def noted(self, *values, **fields):
        used.append(threading.current_thread())
        made(self, *values, **fields)

    asked = body(session_of(served))
    monkeypatch.setattr(types.Part, "__init__", noted)
    headers = {"Lapse-Detach": "true"} if detached else {}
    answer = served.client.post("/run_sse", json=asked, headers=headers)
    assert answer.status_code in {200, 422}
    # The agent makes parts of its own later, in the loop.
    assert used[0] is not served._thread


def test_only_so_many_faults_are_told_one_by_one(served):
    """Seen to fail with each of them told: to tell them takes longer than to find them."""
    part = {f"k{n}": 1 for n in range(2_000)}
    asked = run_of("s", newMessage={"parts": [part]})
    for headers in ({}, {"Lapse-Detach": "true"}):
        answer = served.client.post("/run_sse", json=asked, headers=headers)
        assert answer.status_code == 422
        (fault,) = answer.json()["detail"]
        assert fault == {"type": "too_many_faults", "loc": ["body"], "msg": "has 2000 faults"}
