"""Answers with sessions: ADK's, to the byte, and never rendered in one go where they are large."""

from __future__ import annotations

import importlib.util
import inspect
import threading
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.session import Session
from google.genai import types

from adk_versions import since_adk
from lapse.adk import answers, endpoints
from lapse.adk.answers import SessionResponse, stored_list_response
from lapse.adk.private.versions import server_module
from lapse.adk.private.wire import answer_sessions_with
from lapse.adk.translation import session_of
from lapse.core.keys import SessionKey
from lapse.store.records import Revision, SessionRecord

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself


@pytest.fixture(scope="module")
def adks_own():
    """Return ADK's function, which Lapse may have replaced in the module that is loaded."""
    spec = importlib.util.spec_from_file_location(
        "google.adk.cli.adks_own_server", server_module().__file__
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
@since_adk("2.12", "ADK makes its answers by no such function")
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


STATES = [
    {},
    {"a": "b", "n": 1, "t": True},
    {"text": 'é\u2028"\\\n👩'},
    {"none": None, "f": 1.5, "deep": {"none": None, "l": [1]}},
    {"authType": "apiKey", "apiKey": "secret"},
    {"auth_type": "oauth2", "client_secret": "secret", "clientSecret": "secret"},
    {"user:k": {"authType": "oauth2", "clientSecret": "secret"}},
    {"rawAuthCredential": "secret", "exchanged_auth_credential": "secret"},
    {"requestedAuthConfigs": "secret", "name": "adk_request_credential", "response": "secret"},
    {"long": "x" * 300},
    {str(number): number for number in range(30)},
]


@pytest.mark.parametrize("count", [0, 1, 3, 101])
@pytest.mark.parametrize("state", STATES, ids=lambda state: "-".join(list(state)[:3]))
@since_adk("2.12", "ADK makes its answers by no such function")
async def test_a_list_of_what_is_stored_is_adks_to_the_byte(adks_own, count, state):
    """Seen to fail with another order of the fields, and with secrets left in."""
    records = [
        SessionRecord(
            SessionKey("a", "ü", f"s-{number}"),
            dict(state),
            Revision(datetime(2026, 11, 22, 12, 0, 0, 123 * number, tzinfo=UTC), 0),
        )
        for number in range(count)
    ]
    expected = adks_own([session_of(record) for record in records])
    start, body = await sent(await stored_list_response(records))
    assert body["body"] == expected.body
    assert start["headers"] == expected.raw_headers


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


@since_adk("2.12", "ADK makes its answers by no such function")
def test_adks_routes_answer_by_the_function_that_is_put_in_its_place(monkeypatch):
    """Seen to fail with the name that is set misspelt."""
    api_server = server_module()
    monkeypatch.setattr(api_server, "_redacted_session_response", None)
    answer_sessions_with(SessionResponse)
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


@pytest.mark.skipif(
    "max_body_size" not in inspect.signature(FastAPI.post).parameters,
    reason="this FastAPI knows no bound of a route",
)
async def test_a_route_with_a_bound_of_its_own_keeps_it():
    app = FastAPI()

    @app.post("/bound", max_body_size=10)
    async def bound(body: dict) -> str:
        return str(body)

    (route,) = (one for one in app.routes if getattr(one, "path", "") == "/bound")
    assert endpoints.answer_of(route, lambda handler: handler) is route.app
