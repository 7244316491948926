"""Answers with sessions: ADK's, to the byte, and never rendered in one go where they are large."""

from __future__ import annotations

import importlib.util
import inspect
import threading
from datetime import timedelta

import pytest
from fastapi import FastAPI
from google.adk.cli import api_server
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.session import Session
from google.genai import types

from lapse.adk import answers, endpoints, private
from lapse.adk.answers import SessionResponse

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself


@pytest.fixture(scope="module")
def adks_own():
    """Return ADK's function, which Lapse may have replaced in the module that is loaded."""
    spec = importlib.util.spec_from_file_location(
        "google.adk.cli.adks_own_server", api_server.__file__
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module._redacted_session_response


def event(text, **more):
    return Event(author="user", content=types.UserContent(text), **more)


SECRET = {"authConfig": {"rawAuthCredential": {"authType": "apiKey", "apiKey": "secret"}}}
CALL = types.Part(function_call=types.FunctionCall(name="adk_request_credential", args=SECRET))
SESSIONS = {
    "empty": Session(app_name="a", user_id="u", id="s"),
    "state": Session(
        app_name="a", user_id="u", id="é\u2028", state={"k": [1, {"n": None}], "": 0.5}
    ),
    "secret state": Session(
        app_name="a", user_id="u", id="s", state=SECRET["authConfig"]["rawAuthCredential"]
    ),
    "events": Session(
        app_name="a",
        user_id="u",
        id="s",
        state={"app:k": "v"},
        last_update_time=1.5,
        events=[
            event("hi"),
            event("👩", actions=EventActions(state_delta={"k": {"authType": "apiKey"}})),
            Event(author="model", content=types.Content(parts=[CALL])),
            event("x", custom_metadata={"__adk_internal_mark": "own", "note": "kept"}),
        ],
    ),
    "long": Session(app_name="a", user_id="u", id="s", events=[event("x" * n) for n in range(900)]),
    "wide": Session(app_name="a", user_id="u", id="s", state={str(n): [n] for n in range(9_000)}),
}


async def sent(response):
    messages = []

    async def send(message):
        messages.append(message)

    await response({"type": "http", "method": "GET", "extensions": {}}, None, send)
    return messages


@pytest.mark.parametrize("turn", [0, 5, 60_000], ids=["thread", "both", "loop"])
@pytest.mark.parametrize("name", SESSIONS)
async def test_an_answer_is_adks_to_the_byte(adks_own, name, turn, monkeypatch):
    """Seen to fail with the state rendered last, with a comma left out, with secrets left in."""
    monkeypatch.setattr(answers, "_TURN", timedelta(milliseconds=turn))
    session = SESSIONS[name]
    for given in (session, [session], [session, SESSIONS["empty"]], []):
        expected = adks_own(given)
        start, body = await sent(SessionResponse(given))
        assert body["body"] == expected.body
        assert start["headers"] == expected.raw_headers
        assert start["status"] == 200


@pytest.mark.parametrize("name", ["long", "wide"])
async def test_a_large_session_is_rendered_in_a_thread(name, monkeypatch):
    """Seen to fail with all of it rendered in the loop."""
    rendered = set()
    plain = answers._json

    def noted(value):
        rendered.add(threading.current_thread())
        return plain(value)

    monkeypatch.setattr(answers, "_json", noted)
    await sent(SessionResponse(SESSIONS[name]))
    assert rendered - {threading.main_thread()}
    rendered.clear()
    await sent(SessionResponse(SESSIONS["events"]))
    assert rendered == {threading.main_thread()}


def test_adks_routes_answer_by_the_function_that_is_put_in_its_place(monkeypatch):
    """Seen to fail with the name that is set misspelt."""
    monkeypatch.setattr(api_server, "_redacted_session_response", None)
    private.answer_sessions_with(SessionResponse)
    assert api_server._redacted_session_response is SessionResponse
    asked = inspect.getsource(api_server).count("return _redacted_session_response(")
    assert asked >= 5, "ADK's routes of sessions ask for it when they answer"


def test_what_is_asked_of_fastapis_routes_is_still_there():
    """The parsed body, and large ones validated before, are handed on by these names."""
    app = FastAPI()

    @app.post("/one")
    async def one(body: Session) -> str:
        return body.id

    @app.post("/two")
    async def two(a: Session, b: Session) -> str:
        return a.id + b.id

    @app.post("/none")
    async def none() -> str:
        return ""

    routes = {route.path: route for route in app.routes if hasattr(route, "body_field")}
    valid = endpoints.validator_of(routes["/one"])
    made = valid({"appName": "a", "userId": "u", "id": "s"})
    assert isinstance(made, Session)
    assert valid(made) is made, "FastAPI takes an object of the right class for valid"
    assert endpoints.validator_of(routes["/two"]) is None
    assert endpoints.validator_of(routes["/none"]) is None
    answer = endpoints.answer_of(routes["/one"], lambda handler: handler)
    assert answer is not routes["/one"].app


async def test_a_route_with_a_bound_of_its_own_keeps_it():
    app = FastAPI()

    @app.post("/bound", max_body_size=10)
    async def bound(body: dict) -> str:
        return str(body)

    (route,) = (one for one in app.routes if getattr(one, "path", "") == "/bound")
    assert endpoints.answer_of(route, lambda handler: handler) is route.app
