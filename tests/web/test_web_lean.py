"""Plain requests to ADK's session routes have one answer, whether layers are passed or not."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from itertools import count
from urllib.parse import unquote

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.genai import types
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse

from lapse import Lapse, Settings
from lapse.adk.private import COMPARED
from lapse.core.errors import OutcomeUnknownError, StoreUnavailableError
from lapse.web import lean
from serving import AGENTS

ANN = "/apps/parrot/users/ann/sessions"
HOST = ("host", "127.0.0.1")
UNLIMITED = {
    f"{what}_per_{whom}": 0
    for what in ("creates_per_minute", "waiting")
    for whom in ("user", "address")
}


def settings(**given):
    return Settings(store_url="sqlite:///:memory:", **{**UNLIMITED, **given})


OPEN = settings()
KNOWN = settings(
    auth="header", auth_header="X-User", auth_role_header="X-Groups", auth_proxies="127.0.0.1"
)
LIMITED = settings(creates_per_minute_per_user=3, waiting_per_user=4, app_state_by="agents")
NUMBERS = count()
SETTINGS = {"open": OPEN, "known": KNOWN, "limited": LIMITED}


def scope_of(method, target, headers):
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


class Way:
    """One application, and how often it was asked behind its layers."""

    def __init__(self, app):
        self.app = app
        self.passed = 0

    async def ask(self, method, target, headers=(HOST,), body=b""):
        """Send a request, and return what goes to the client: status, headers and body."""
        sent, pending = [], [{"type": "http.request", "body": body, "more_body": False}]
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        scope = scope_of(method, target, raw)

        async def receive():
            return pending.pop() if pending else await asyncio.Future()

        async def send(message):
            sent.append(message)

        try:
            await self.app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the server logs it, and the answer is sent
            sent.append({"type": "raised", "body": type(error).__name__.encode()})
        start = next(one for one in sent if one["type"] == "http.response.start")
        told = b"".join(one.get("body", b"") for one in sent)
        return start["status"], start["headers"], told


def ready(body, *headers, host=HOST):
    """Return a body as JSON, and the headers that go with it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    length = ("content-length", str(len(raw)))
    return [host, *headers, ("content-type", "application/json"), length], raw


def alike(answer, names):
    """Return an answer without what no two answers have alike; ids are told by their order."""
    status, headers, body = answer
    text = re.sub(r'("(?:lastUpdateTime|timestamp)":)[\d.e+-]+', r"\1T", body.decode())
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "T", text)

    def named(found):
        return names.setdefault(found.group(), f"id-{len(names)}")

    text = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", named, text)
    told = [(name, value) for name, value in headers if name != b"content-length"]
    return status, told, text


@pytest.fixture(scope="module", autouse=True)
def unread():
    """Nobody reads spans here, as in `lapse serve`; ADK has set up tracing that somebody may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean, "is_read", lambda: False)
        yield


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def make(loop):
    """Return a function that makes an application whose plain requests are answered in front."""
    stack = AsyncExitStack()

    def make(settings, *, before=lambda app: None, **patched):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in patched.items():
                patch.setattr(lean, name, value)
            app = Lapse(settings=settings).app(AGENTS, port=0)
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
    """Two applications: one answers plain requests in front of its layers, the other never."""
    settings = SETTINGS[request.param]
    return make(settings), make(settings, is_compared=lambda: False)


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


IDS = st.sampled_from(["ann", "bob", "s1", "s2", "s3", "a.b~c-d_e", "%2e%2e", "x%2Fy", "ü", "-"])
TARGETS = st.builds(
    "/apps/{}/users/{}/sessions{}{}".format,
    st.sampled_from(["parrot", "parrot", "parrot", "nobody", "__adk", "par%72ot"]),
    IDS.map(lambda text: text.replace("ü", "%C3%BC")),
    st.one_of(st.just(""), IDS.map(lambda text: "/" + text.replace("ü", "%C3%BC")), st.just("/")),
    st.sampled_from(["", "", "", "", "?", "?a=1", "?status=waiting", "?lifecycle=true"]),
)
STATES = st.dictionaries(
    st.sampled_from(["a", "app:a", "user:a", "temp:a", ""]),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=4,
    ),
    max_size=3,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "state": STATES | st.sampled_from([None, [], "x", 1]),
        "sessionId": st.sampled_from(["s1", "s2", " s3 ", "", None, "x/y", "x" * 129, 7]),
        "session_id": st.sampled_from(["s1", "s4"]),
        "options": st.sampled_from(
            [
                *({}, None, {"ttl_minutes": 5}, {"ttlMinutes": 0.5}, {"ttlMinutes": -1}),
                *({"metadata": {"a": 1}}, {"metadata": 3}, {"ttl": 5}, {"state": {}}),
                *({"reuse": True}, [1]),
            ]
        ),
        "events": st.sampled_from([None, [], [{"author": "user"}]]),
        "sate": st.just({}),
    },
)
BODIES = st.one_of(
    FIELDS.map(lambda fields: json.dumps(fields).encode()),
    st.sampled_from(
        [
            *(b"null", b"[]", b"1", b'"x"', b"{", b"\xff", b'{"state":{},"state":{"a":1}}'),
            *(b'{"state":' + b"[" * 40 + b"]" * 40 + b"}", b'{"state":{"a":"\\ud800"}}'),
            *(b'{"state":{"a":NaN}}', b'{"state":{"a":1e999}}', b'{"state":{"a":"\\u0000"}}'),
            b'{"state":{"a":"' + b"x" * 70_000 + b'"}}',
        ]
    ),
)
OTHERS = st.lists(
    st.sampled_from(
        [
            *(("x-user", "ann"), ("x-user", "bob"), ("x-user", "")),
            *(("x-groups", "lapse-operators"), ("x-groups", "lapse-services")),
            *(("origin", "http://127.0.0.1"), ("origin", "http://evil.test"), ("cookie", "a=b")),
            *(("x-forwarded-for", "192.0.2.7"), ("idempotency-key", "k"), ("accept", "x/y")),
            *(("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01"), ("x" * 9, "y" * 70)),
        ]
    ),
    min_size=1,
    max_size=3,
)
HOSTS = st.sampled_from([[("host", "evil.test")], [("host", "localhost:1")], [], [HOST, HOST]])
KINDS = st.sampled_from(["application/json; charset=utf-8", "text/plain", ""])


PLAIN_TARGETS = st.builds(
    "/apps/{}/users/{}/sessions{}".format,
    st.sampled_from(["parrot", "parrot", "nobody"]),
    st.sampled_from(["ann", "bob"]),
    st.sampled_from(["", "/s1", "/s2"]),
)
PLAIN_BODIES = st.sampled_from(
    [b"", b"", b"null", b"{}", b'{"sessionId":"s1"}', b'{"session_id":"s2","state":{"user:a":1}}']
)


@st.composite
def requests(draw):
    """Draw a plain request, with at most one or two things that are unusual."""
    odd = draw(
        st.sets(st.sampled_from(["target", "host", "header", "body", "kind", "method"]), max_size=2)
    )
    target = draw(TARGETS if "target" in odd else PLAIN_TARGETS)
    methods = ["GET", "DELETE"] if target.endswith(("/s1", "/s2")) else ["POST", "POST", "GET"]
    if "method" in odd:
        methods = ["POST", "GET", "DELETE", "HEAD", "PATCH", "PUT"]
    method = draw(st.sampled_from(methods))
    headers = draw(HOSTS) if "host" in odd else [HOST]
    headers = [*headers, ("x-user", draw(st.sampled_from(["ann", "ann", "bob"])))]
    headers += draw(OTHERS) if "header" in odd else []
    body = b""
    if method == "POST":
        body = draw(BODIES if "body" in odd else PLAIN_BODIES)
    elif "body" in odd:
        body = draw(BODIES)
    if body:
        kind = draw(KINDS) if "kind" in odd else "application/json"
        headers += [("content-type", kind)] if kind else []
        headers.append(("content-length", str(len(body))))
    return method, target, headers, body


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


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PARTS = st.one_of(
    st.builds(types.Part, text=TEXTS),
    st.just(types.Part(text="long " * 5_000)),
    st.builds(
        types.Part,
        function_call=st.builds(
            types.FunctionCall,
            name=st.sampled_from(["look", "adk_request_credential"]),
            args=st.dictionaries(st.sampled_from(["a", "clientSecret", "é"]), TEXTS),
        ),
    ),
    st.builds(
        types.Part,
        function_response=st.builds(
            types.FunctionResponse,
            name=st.just("look"),
            response=st.just({"found": [1, None, "x"]}),
        ),
    ),
)
EVENTS = st.lists(
    st.builds(
        Event,
        author=st.sampled_from(["user", "parrot"]),
        invocation_id=st.sampled_from(["e-1", "e-2", "é"]),
        content=st.none() | st.builds(types.Content, parts=st.lists(PARTS, max_size=3)),
        turn_complete=st.none() | st.booleans(),
        error_code=st.none() | st.just("429"),
        custom_metadata=st.none() | st.just({"a": {"client_secret": "hidden", "n": 1e300}}),
        actions=st.builds(
            EventActions,
            state_delta=st.dictionaries(
                st.sampled_from(["a", "user:a", "temp:a"]), TEXTS, max_size=2
            ),
        ),
    ),
    min_size=1,
    max_size=6,
)


@effort(max_examples=60, suppress_health_check=list(HealthCheck))
@given(events=EVENTS)
def test_a_conversation_reads_alike_when_it_is_joined_from_what_is_stored(loop, both, events):
    """Seen to fail with events that are joined as they are stored, and with secrets in them."""
    session_id = f"talk-{next(NUMBERS)}"
    for number, event in enumerate(events):
        event.id, event.timestamp = f"event {number} of {session_id}", 1_700_000_000.25 + number
    for way in both:
        created(loop, way, sessionId=session_id)
        loop.run(append_all(way.app.state.lapse.sessions, session_id, events))
    asked = ("GET", f"{ANN}/{session_id}", [HOST], b"")
    assert compare(loop, both, [asked, asked]) == 2


async def append_all(service, session_id, events):
    session = await service.get_session(app_name="parrot", user_id="ann", session_id=session_id)
    for event in events:
        await service.append_event(session, event.model_copy(deep=True))


@pytest.fixture(scope="module")
def both(make):
    """Two applications without authentication and without quotas."""
    return make(OPEN), make(OPEN, is_compared=lambda: False)


@pytest.fixture(scope="module")
def one_way(make):
    return make(OPEN)


def test_plain_requests_do_not_pass_the_layers(loop, one_way):
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


@pytest.mark.parametrize(
    "asked",
    [
        *(("POST", ANN, *ready({"options": wrong})) for wrong in ({"ttl": 5}, {"state": {}}, [1])),
        ("POST", ANN, *ready({"events": []})),
        ("POST", ANN, *ready({"sate": {}})),
        ("POST", ANN, *ready({}, ("idempotency-key", "key-1"))),
        ("POST", ANN, *ready({}, ("cookie", "token=x"))),
        ("POST", ANN, *ready({}, ("origin", "http://127.0.0.1"))),
        ("POST", ANN, *ready({}, ("x-forwarded-for", "192.0.2.1"))),
        ("POST", ANN, *ready({}, host=("host", "evil.test"))),
        ("GET", f"{ANN}?status=waiting", [HOST], b""),
        ("GET", f"{ANN}/%61", [HOST], b""),
    ],
    ids=lambda asked: f"{asked[1][26:]} {asked[2][1:2]} {asked[3][:20]}",
)
def test_what_a_layer_or_a_route_looks_at_passes_the_layers(loop, both, asked):
    """Seen to fail without the look at fields and options, at cookies and at forwarded addresses.

    A client may be counted by its address, be warned of a misspelt field, or be refused.
    """
    assert compare(loop, both, [asked]) == 0


def test_an_error_of_the_service_is_told_by_the_route(loop, make):
    """Seen to fail with an error that is raised in front: 500, and no word."""
    one, other = ways = make(OPEN), make(OPEN, is_compared=lambda: False)
    compare(loop, ways, [("POST", ANN, *ready({"sessionId": "s"}))] * 2)
    compare(loop, ways, [("GET", f"{ANN}/none", [HOST], b"")])
    for error in (StoreUnavailableError("away"), OutcomeUnknownError("away"), ValueError("x")):

        async def fails(*_, error=error, **__):
            raise error

        with pytest.MonkeyPatch.context() as patch:
            for way in ways:
                service = way.app.state.lapse.sessions
                for name in (*lean._ENDPOINTS.values(), "stored_session"):
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


def test_a_body_that_comes_late_or_in_pieces_passes_the_layers(loop, one_way):
    before = one_way.passed

    async def ask(pieces):
        told = []

        async def send(message):
            told.append(message)

        async def receive():
            return await next(pieces)

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        scope = scope_of("POST", ANN, headers=[*headers, (b"content-length", b"16")])
        await one_way.app(scope, receive, send)
        return told[0]["status"]

    async def piece(body, *, more):
        return {"type": "http.request", "body": body, "more_body": more}

    def in_pieces():
        yield piece(b'{"state":', more=True)
        yield piece(b'{"a":1}', more=True)
        yield piece(b"}", more=False)

    assert loop.run(ask(in_pieces())) == 200
    assert one_way.passed == before + 1


class Aside(BaseHTTPMiddleware):
    """A layer of somebody else's that answers by itself."""

    async def dispatch(self, _request, _call_next):
        return PlainTextResponse("aside", 418)


def add_behind(app):
    app.user_middleware.append(type(app.user_middleware[0])(Aside))


def replace_routes(app):
    async def own(user_id: str):
        return {"own": user_id}

    app.get("/apps/{app_name}/users/{user_id}/sessions")(own)
    app.router.routes.insert(1, app.router.routes.pop())


def test_a_layer_of_somebody_else_is_never_passed_by(loop, make):
    """Seen to fail without the look at the layers."""
    assert loop.run(make(OPEN, before=add_behind).ask("GET", ANN))[0] == 418


def test_a_route_of_somebody_else_answers_itself(loop, make):
    """Seen to fail without the look at the routes."""
    way = make(OPEN, before=replace_routes)
    assert loop.run(way.ask("GET", ANN))[2] == b'{"own":"ann"}'
    assert loop.run(way.ask("POST", ANN))[0] == 200
    assert way.passed == 1


def test_spans_that_somebody_reads_are_made(loop, make, monkeypatch):
    way = make(OPEN)
    monkeypatch.setattr(lean, "is_read", lambda: True)
    assert loop.run(way.ask("POST", ANN))[0] == 200
    assert way.passed == 1


def test_the_two_ways_were_compared_with_this_adk():
    """A new ADK is answered the long way until this module has run with it."""
    from google.adk import version

    assert version.__version__ in COMPARED, (
        "if this module passes but for this test, add the version to COMPARED in adk/private.py"
    )
