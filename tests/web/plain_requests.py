"""Requests to ADK's session routes, plain and unusual ones, and an application that is asked."""

import asyncio
import json
import re
from urllib.parse import unquote

from google.adk.sessions.base_session_service import BaseSessionService
from hypothesis import strategies as st
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse

from lapse import Principal
from lapse.auth.addresses import current_address
from lapse.auth.options import NotAuthenticatedError
from lapse.core.request import KNOWN

HOST = ("host", "127.0.0.1")


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
    """One application, how many requests did not skip its middleware, and of how many it told the
    server that their caller is known."""

    def __init__(self, app):
        self.app = app
        self.passed = 0
        self.known = 0

    async def ask(self, method, target, headers=(HOST,), body=b""):
        """Send a request, and return what goes to the client: status, headers and body."""
        sent, pending = [], [{"type": "http.request", "body": body, "more_body": False}]
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        scope = scope_of(method, target, raw)
        scope["extensions"] = {KNOWN: self._know}

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

    def _know(self):
        self.known += 1


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
    # Seconds until a rate limit has room go down between the two requests.
    text = re.sub(r"try again in \d+ s", "try again in N s", text)

    def named(found):
        return names.setdefault(found.group(), f"id-{len(names)}")

    text = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", named, text)
    told = [
        (name, b"N" if name == b"retry-after" and value.isdigit() else value)
        for name, value in headers
        if name != b"content-length"
    ]
    return status, told, text


class Redacting(BaseSessionService):
    """A service around Lapse's, which shows less."""

    def __init__(self, inner):
        self._inner, self.store = inner, inner.store

    async def create_session(self, **asked):
        return await self._inner.create_session(**asked)

    async def list_sessions(self, **asked):
        return await self._inner.list_sessions(**asked)

    async def delete_session(self, **asked):
        await self._inner.delete_session(**asked)

    async def get_session(self, **asked):
        session = await self._inner.get_session(**asked)
        session.state = {"redacted": True}
        return session


class Counting:
    """Knows everybody, and counts how often it is asked, and from which address."""

    def __init__(self):
        self.asked = []

    async def authenticate(self, connection):
        self.asked.append(str(current_address()))
        if "x-user" not in connection.headers:
            raise NotAuthenticatedError("nobody", "Bearer")
        return Principal(connection.headers["x-user"])


def piece(body, *, more):
    return {"type": "http.request", "body": body, "more_body": more}


PIECES = [piece(b'{"state":', more=True), piece(b'{"a":1}', more=True), piece(b"}", more=False)]


class Aside(BaseHTTPMiddleware):
    """Middleware of somebody else's that answers by itself."""

    async def dispatch(self, _request, _call_next):
        return PlainTextResponse("aside", 418)


def add_behind(app):
    app.user_middleware.append(type(app.user_middleware[0])(Aside))


def add_route(app, path):
    async def own(user_id: str):
        return {"own": user_id}

    app.get(path)(own)
    app.router.routes.insert(1, app.router.routes.pop())


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
            b'{"state":{"a":"' + b"x" * 2_000 + b'"}}',
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
