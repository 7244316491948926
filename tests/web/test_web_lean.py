"""Plain requests to ADK's session routes have one answer, whether they skip middleware or not."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from itertools import count

import pytest
from google.adk.events.event import Event
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from plain_requests import (
    HOST,
    PIECES,
    Counting,
    Redacting,
    Way,
    add_behind,
    add_route,
    alike,
    ready,
    requests,
    scope_of,
)
from starlette.responses import PlainTextResponse
from starlette.routing import Host

from adk_versions import since_adk
from generated_events import events
from lapse import Authentication, Lapse, Settings
from lapse.adk import answers
from lapse.adk.private.versions import COMPARED
from lapse.core.errors import InvalidValueError, OutcomeUnknownError, StoreUnavailableError
from lapse.web import endpoints, lean, server
from serving import AGENTS

pytestmark = since_adk("2.13", "plain requests take ADK's own way")

ANN = "/apps/parrot/users/ann/sessions"
UNLIMITED = {
    f"{what}_per_{whom}": 0 for what in ("creates", "waiting") for whom in ("user", "address")
}


def settings(**given):
    return Settings(**{"store_url": "sqlite:///:memory:", **UNLIMITED, **given})


OPEN = settings()
KNOWN = settings(
    auth="header", auth_header="X-User", auth_role_header="X-Groups", auth_proxies="127.0.0.1"
)
LIMITED = settings(creates_per_user=3, waiting_per_user=4, app_state_by="agents", max_state=1)
NUMBERS = count()
SETTINGS = {"open": OPEN, "known": KNOWN, "limited": LIMITED}


@pytest.fixture(scope="module", autouse=True)
def unread():
    """Nobody reads spans here, as in `lapse serve`; ADK has set up tracing that somebody may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean, "is_telemetry_read", lambda _: False)
        yield


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def make(loop):
    """Return a function that makes an application whose plain requests are answered in front."""
    stack = AsyncExitStack()

    def make(settings, *, before=lambda app: None, compared=True, **options):
        with pytest.MonkeyPatch.context() as patch:
            for module in (lean, answers):
                patch.setattr(module, "is_compared", lambda: compared)
            app = Lapse(settings=settings).app(AGENTS, port=0, **options)
            before(app)
            loop.run(stack.enter_async_context(app.router.lifespan_context(app)))
            app.middleware_stack = app.build_middleware_stack()
        way = Way(app)
        layer = app.middleware_stack
        while not isinstance(layer, lean.LeanSessions):
            layer = getattr(layer, "app", None) or layer._app
        inner = layer._app

        async def counted(*asked):
            way.passed += 1
            await inner(*asked)

        layer._app = counted
        return way

    yield make
    loop.run(stack.aclose())


@pytest.fixture(scope="module", params=SETTINGS)
def ways(request, make):
    """Two applications: in one, plain requests skip the middleware; in the other, none does."""
    settings = SETTINGS[request.param]
    return make(settings), make(settings, compared=False)


def compare(loop, ways, asked):
    """Send requests both ways; the answers must be equal. Return how many did not pass."""
    before, names = [way.passed for way in ways], ({}, {})
    for method, target, headers, body in asked:
        one, other = (
            alike(loop.run(way.ask(method, target, headers, body)), known)
            for way, known in zip(ways, names, strict=True)
        )
        assert one == other, (method, target, headers, body)
    assert ways[1].passed == before[1] + len(asked)
    return len(asked) - (ways[0].passed - before[0])


@pytest.mark.long
@pytest.mark.timeout(600)
@effort(max_examples=150)
@given(asked=st.lists(requests(), min_size=1, max_size=12))
def test_whatever_is_asked_both_ways_answer_alike(loop, ways, asked):
    """Seen to fail without the check of Host, of app state, of who asks, and of the served apps."""
    compare(loop, ways, asked)


def created(loop, way, **body):
    status, _, told = loop.run(way.ask("POST", ANN, *ready(body)))
    assert status == 200, told
    return json.loads(told)["id"]


SECRET = {"authConfig": {"rawAuthCredential": {"authType": "apiKey", "apiKey": "secret"}}}
UNLIKE_STORED = [
    {
        "author": "parrot",
        "content": {
            "parts": [{"functionCall": {"name": "adk_request_credential", "args": SECRET}}]
        },
    },
    {"author": "parrot", "customMetadata": {"__adk_internal_mark": "own", "note": "kept"}},
]
"""Events that ADK's server sends otherwise than they are stored: with a secret, with a mark."""


@effort(max_examples=60, suppress_health_check=list(HealthCheck))
@given(said=st.lists(events(), min_size=1, max_size=6))
def test_a_conversation_reads_alike_when_it_is_joined_from_what_is_stored(loop, both, said):
    """Seen to fail with events that are joined as they are stored, and with secrets in them."""
    said = [*said, *(Event.model_validate(one) for one in UNLIKE_STORED)]
    session_id = f"talk-{next(NUMBERS)}"
    for number, event in enumerate(said):
        event.id, event.timestamp = f"event {number} of {session_id}", 1_700_000_000.25 + number
        event.partial = None
    for way in both:
        created(loop, way, sessionId=session_id)
        loop.run(append_all(way.app.state.lapse.sessions, session_id, said))
    asked = ("GET", f"{ANN}/{session_id}", [HOST], b"")
    assert compare(loop, both, [asked, asked]) == 2


async def append_all(service, session_id, said):
    """Append events as an agent's run does, which leaves out what cannot be stored."""
    session = await service.get_session(app_name="parrot", user_id="ann", session_id=session_id)
    for event in said:
        with suppress(InvalidValueError):
            await service.append_event(session, event.model_copy(deep=True))


@pytest.fixture(scope="module")
def both(make):
    """Two applications without authentication and without quotas."""
    return make(OPEN), make(OPEN, compared=False)


@pytest.fixture(scope="module")
def one_way(make):
    return make(OPEN)


def test_plain_requests_skip_the_middleware(loop, one_way):
    session = created(loop, one_way, state={"a": 1}, options={"ttlMinutes": 3})
    asked = [
        ("POST", ANN, [HOST], b""),
        ("POST", ANN, *ready(b"null")),
        ("POST", ANN, *ready({"sessionId": "mine"}, ("x-forwarded", "y"))),
        ("GET", ANN, [HOST, ("user-agent", "browser"), ("accept", "*/*")], b""),
        ("GET", f"{ANN}/{session}", [HOST], b""),
        ("DELETE", f"{ANN}/{session}", [HOST], b""),
    ]
    for one in asked:
        before = one_way.passed
        assert loop.run(one_way.ask(*one))[0] == 200, one
        assert one_way.passed == before, one


@pytest.mark.parametrize("compared", [True, False], ids=["lean", "through the middleware"])
def test_the_server_is_told_whose_caller_is_known_and_of_nobody_else(loop, make, compared):
    """Seen to fail without `tell_known` in `lean.py`, and without it in `gate.py`."""
    way = make(KNOWN, compared=compared)
    loop.run(way.ask("GET", ANN, [HOST, ("x-user", "ann")]))
    assert way.known == 1
    assert loop.run(way.ask("GET", ANN, [HOST]))[0] == 401
    assert loop.run(way.ask("GET", "/livez", [HOST]))[0] == 200
    assert way.known == 1


@pytest.mark.parametrize(
    "asked",
    [
        *(("POST", ANN, *ready({"options": wrong})) for wrong in ({"ttl": 5}, {"state": {}}, [1])),
        ("POST", ANN, *ready({"events": []})),
        ("POST", ANN, *ready({"sate": {}})),
        ("POST", ANN, *ready({"state": {"k": "x" * 70_000}})),
        ("POST", ANN, *ready({}, ("idempotency-key", "key-1"))),
        ("POST", ANN, *ready({}, ("cookie", "token=x"))),
        ("POST", ANN, *ready({}, ("origin", "http://evil.test"))),
        ("POST", ANN, *ready({}, ("x-forwarded-for", "192.0.2.1"))),
        ("POST", ANN, *ready({}, host=("host", "evil.test"))),
        ("GET", f"{ANN}?status=waiting", [HOST], b""),
        ("GET", f"{ANN}/%61", [HOST], b""),
    ],
    ids=lambda asked: f"{asked[1][26:]} {asked[2][1:2]} {asked[3][:20]}",
)
def test_what_a_middleware_or_a_route_looks_at_skips_nothing(loop, both, asked):
    """Seen to fail without the look at fields and options, at cookies and at forwarded addresses.

    A client may be counted by its address, be warned of a misspelt field, or be refused.
    """
    assert compare(loop, both, [asked]) == 0


OWN, EVIL, HTTPS = "http://127.0.0.1", "http://evil.test", ("x-forwarded-proto", "https")


@pytest.mark.parametrize("own", [[OWN], [OWN, EVIL], ["https://127.0.0.1", HTTPS]])
@pytest.mark.parametrize("other", [[], ["null"], [""], [OWN, HTTPS], [EVIL, OWN], [f"{OWN}:1"]])
def test_a_page_of_the_server_itself_skips_the_middleware(loop, both, own, other):
    """Browsers send the origin with each POST. Seen to fail without the header that is exposed."""
    headers = [one if isinstance(one, tuple) else ("origin", one) for one in other or own]
    asked = [("POST", ANN, *ready({}, *headers)), ("GET", ANN, [HOST, *headers], b"")]
    assert compare(loop, both, asked) == (0 if other else 2)
    assert {loop.run(way.ask(*asked[0]))[0] for way in both} == {403 if other else 200}


@pytest.mark.parametrize("origin", ["http://shop.test", OWN, EVIL, ""])
def test_a_page_of_an_origin_that_cors_allows_skips_the_middleware_but_cors(loop, make, origin):
    """Seen to fail without CORS: `Vary: Origin` was missing where a request has no origin, too."""
    ways = [make(OPEN, compared=one, allow_origins=["http://shop.test"]) for one in (True, False)]
    headers = [("origin", origin)] if origin else []
    assert compare(loop, ways, [("POST", ANN, *ready({}, *headers))]) == (origin != EVIL)


@pytest.mark.parametrize(
    ("state", "status"), [({"a": "x" * 2_000}, 413), ({"app:a": 1}, 400), ({"user:a": 1}, 200)]
)
def test_a_state_that_its_client_may_not_set_is_refused(loop, make, state, status):
    """Seen to fail with one bound for all small bodies, and without the look at app state: 200."""
    ways = make(LIMITED), make(LIMITED, compared=False)
    asked = ("POST", ANN, *ready({"state": state}))
    assert compare(loop, ways, [asked]) == (status == 200)
    assert loop.run(ways[0].ask(*asked))[0] == status


def test_an_error_of_the_service_is_told_by_the_route(loop, make):
    """Seen to fail with an error that is raised in front: 500, and no word."""
    one, other = ways = make(OPEN), make(OPEN, compared=False)
    compare(loop, ways, [("POST", ANN, *ready({"sessionId": "s"}))] * 2)
    compare(loop, ways, [("GET", f"{ANN}/none", [HOST], b"")])
    for error in (StoreUnavailableError("away"), OutcomeUnknownError("away"), ValueError("x")):

        async def fails(*_, error=error, **__):
            raise error

        with pytest.MonkeyPatch.context() as patch:
            for way in ways:
                service = way.app.state.lapse.sessions
                for name in (*endpoints.ENDPOINTS.values(), "stored_session", "stored_list"):
                    patch.setattr(service, name, fails)
            compare(
                loop,
                ways,
                [
                    ("POST", ANN, *ready({})),
                    ("GET", ANN, [HOST], b""),
                    ("GET", f"{ANN}/s", [HOST], b""),
                    ("DELETE", f"{ANN}/s", [HOST], b""),
                ],
            )
    assert one.passed == 2 + 3 * 4
    assert other.passed == 3 + 3 * 4


@pytest.mark.parametrize("is_late", [False, True], ids=["in pieces", "late"])
def test_a_request_whose_body_is_not_there_at_once_skips_nothing(loop, make, monkeypatch, is_late):
    """Seen to fail with the pieces lost that came before, and with a wait without end."""
    way, told, pending = make(OPEN), [], list(PIECES)
    monkeypatch.setattr(lean, "_SOON", timedelta(0))
    waits = [is_late]

    async def receive():
        if waits.pop() if waits else False:
            await asyncio.Future()
        return pending.pop(0)

    async def send(message):
        told.append(message)

    kind = (b"content-type", b"application/json")
    headers = [(b"host", b"127.0.0.1"), kind, (b"content-length", b"17")]
    loop.run(way.app(scope_of("POST", ANN, headers), receive, send))
    assert (told[0]["status"], way.passed) == (200, 1)
    assert json.loads(told[1]["body"])["state"] == {"a": 1}


def test_middleware_of_somebody_else_is_never_skipped(loop, make):
    """Seen to fail without the look at the middleware."""
    assert loop.run(make(OPEN, before=add_behind).ask("GET", ANN))[0] == 418


@pytest.mark.parametrize("path", ["/apps/{app_name}", "/apps/parrot"])
def test_a_route_of_somebody_else_answers_itself(loop, make, path):
    """Seen to fail without the look at the routes, and with a look at one path for all."""
    way = make(OPEN, before=partial(add_route, path=f"{path}/users/{{user_id}}/sessions"))
    assert loop.run(way.ask("GET", ANN))[2] == b'{"own":"ann"}'
    assert loop.run(way.ask("POST", ANN))[0] == 200


def test_a_route_that_looks_at_headers_is_asked_with_them(loop, make):
    """Seen to fail with routes that are asked about a request without headers: 500."""

    def add(app):
        app.router.routes.insert(0, Host("elsewhere.test", PlainTextResponse("elsewhere")))

    assert loop.run(make(OPEN, before=add).ask("GET", ANN))[0] == 200


def test_a_service_around_lapses_answers_itself(loop, tmp_path, monkeypatch):
    """Seen to fail with an endpoint that reads from the service that Lapse is mounted with."""
    adk_app = server.adk_app

    def around(service, *args, **options):
        return adk_app(Redacting(service), *args, **options)

    monkeypatch.setattr(server, "adk_app", around)
    app = Lapse(settings=settings(store_url=f"sqlite:///{tmp_path}/lapse.db")).app(AGENTS, port=0)

    async def ask():
        async with app.router.lifespan_context(app):
            way = Way(app)
            await way.ask("POST", ANN, *ready({"sessionId": "s", "state": {"secret": 1}}))
            return await way.ask("GET", f"{ANN}/s")

    assert json.loads(loop.run(ask())[2])["state"] == {"redacted": True}


@pytest.mark.parametrize(
    ("name", "headers", "status"),
    [
        ("", [HOST, ("x-user", "ann")], 200),
        ("/none", [HOST, ("x-user", "ann")], 404),
        ("", [HOST, ("x-user", "bob")], 404),
        ("", [HOST], 401),
    ],
)
def test_the_caller_is_authenticated_once_and_with_an_address(loop, make, name, headers, status):
    """Seen to fail with a request that is authenticated again when it is passed on."""
    counting = Counting()
    way = make(OPEN, authentication=Authentication(counting))
    assert loop.run(way.ask("GET", ANN + name, headers))[0] == status
    assert counting.asked == ["127.0.0.1"]


def test_spans_that_somebody_reads_are_made(loop, make, monkeypatch):
    way = make(OPEN)
    monkeypatch.setattr(lean, "is_telemetry_read", lambda _: True)
    assert loop.run(way.ask("POST", ANN))[0] == 200
    assert way.passed == 1


def test_the_two_ways_were_compared_with_this_adk():
    """A new ADK is answered the long way until this module has run with it."""
    from google.adk import version

    assert version.__version__ in COMPARED, (
        "if this module passes but for this test, add the version to COMPARED of adk/private"
    )
