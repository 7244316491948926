"""Quotas over HTTP: every way to create a session, refusals, reuse, addresses, and a flood."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from lapse import Lapse, LapseSessionService, Quotas, Settings, mount
from lapse.auth import Authentication
from lapse.auth.principals import Principal, Role
from parts import store_with_parts
from serving import AGENTS, Server, serving

HELLO = {"role": "user", "parts": [{"text": "hello", "functionCall": None}]}
FLOOD = 1500
RSS_GROWTH = 24 * 1024
"""KiB by which a server may grow in a flood: what 1,500 sessions kept in memory would exceed."""


@pytest.fixture(scope="module", params=[None, "sqlite+aiosqlite:///conversations.db"])
def limited_server(request, tmp_path_factory) -> Server:
    """Return a server with quotas; its users are new in each test.

    Used sessions live in its store, and then in another session service.
    """
    elsewhere = {"LAPSE_CONVERSATIONS_URI": request.param} if request.param else {}
    with serving(
        tmp_path_factory.mktemp("limited"),
        str(AGENTS),
        **elsewhere,
        LAPSE_CREATES_PER_MINUTE_PER_USER="3",
        LAPSE_WAITING_PER_USER="2",
    ) as running:
        yield running


def ways(server: Server, user: str) -> list:
    """Return every way to create a session, for one user."""
    base = server.path(user=user)
    return [
        lambda n: server.client.post(base),
        lambda n: server.client.post(base, json={"state": {"a": 1}}),
        lambda n: server.client.post(base, json={"sessionId": f"named-{n}"}),
        lambda n: server.client.post(f"{base}/in-path-{n}"),
        lambda n: server.client.post(f"{base}/legacy-{n}/run", json={"message": "hello"}),
    ]


@pytest.mark.parametrize("way", range(5))
def test_every_way_to_create_a_session_is_limited(limited_server, way):
    """Seen to fail where a route creates in the store itself."""
    create = ways(limited_server, f"way{way}")[way]
    answers = [create(number) for number in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    for answer in answers[3:]:
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert "as many sessions as are allowed" in answer.json()["detail"]


def test_one_limit_counts_creations_by_every_route_together(limited_server):
    statuses = [way(9).status_code for way in ways(limited_server, "mixed")]
    assert sorted(statuses) == [200, 200, 200, 429, 429]


def test_a_run_on_an_existing_session_is_not_limited_by_creations(limited_server):
    base = limited_server.path(user="full")
    ids = [limited_server.client.post(base).json().get("id") for _ in range(4)]
    assert ids[3] is None
    for session_id in ids[:3]:
        answer = limited_server.client.post(f"{base}/{session_id}/run", json={"message": "hello"})
        assert answer.status_code == 200, answer.text


def test_over_the_quota_the_oldest_empty_session_expires(limited_server):
    base = limited_server.path(user="many")
    ids = [limited_server.client.post(base).json()["id"] for _ in range(3)]
    statuses = [
        limited_server.client.get(f"{base}/{name}/lifecycle").json()["status"] for name in ids
    ]
    assert statuses == ["expired", "waiting", "waiting"]
    assert [one["id"] for one in limited_server.client.get(base).json()] == ids[1:]
    assert limited_server.metric("lapse_sessions_over_quota_total") >= 1


def test_resurrections_by_request_are_limited_like_creations(limited_server):
    """Seen to fail with a route that resurrects in the store itself."""
    base = limited_server.path(user="back")
    ids = [limited_server.client.post(base).json()["id"] for _ in range(3)]
    statuses = [
        limited_server.client.get(f"{base}/{name}/lifecycle").json()["status"] for name in ids
    ]
    assert statuses == ["expired", "waiting", "waiting"]
    lives = limited_server.client.post(f"{base}/{ids[1]}/lifecycle/resurrect")
    assert (lives.status_code, lives.json()["resurrections"]) == (200, 0)
    refused = limited_server.client.post(f"{base}/{ids[0]}/lifecycle/resurrect")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("fields", [{}, {"newMessage": HELLO, "invocationId": "i"}])
@pytest.mark.parametrize("headers", [{}, {"Lapse-Detach": "true"}], ids=["plain", "detached"])
def test_a_run_that_begins_nothing_resurrects_within_the_limits(limited_server, fields, headers):
    """Seen to fail with a middleware that revives every run as one that brings a message."""
    user = f"quiet-{len(fields)}-{len(headers)}"
    base = limited_server.path(user=user)
    ids = [limited_server.client.post(base).json()["id"] for _ in range(3)]
    run = {"appName": "parrot", "userId": user, "sessionId": ids[0]}
    refused = limited_server.client.post("/run_sse", json=run | fields, headers=headers)
    # A detached run without a message is no run at all.
    assert refused.status_code == (422 if headers and not fields else 429), refused.text
    assert limited_server.client.get(f"{base}/{ids[0]}/lifecycle").json()["status"] == "expired"
    message = run | {"newMessage": HELLO}
    answer = limited_server.client.post("/run_sse", json=message, headers=headers)
    assert answer.status_code == 200, answer.text
    assert limited_server.client.get(f"{base}/{ids[0]}/lifecycle").json()["status"] == "used"


def plain(server, key, message):
    return server.client.post("/run", json=key | {"newMessage": message})


def detached(server, key, message):
    headers = {"Lapse-Detach": "true"}
    return server.client.post("/run_sse", json=key | {"newMessage": message}, headers=headers)


def by_lapses_route(server, key, message):
    base = server.path(key["sessionId"], user=key["userId"])
    return server.client.post(f"{base}/run", json={"newMessage": message})


@pytest.mark.parametrize("run", [plain, detached, by_lapses_route])
@pytest.mark.parametrize(
    "parts",
    [
        [],
        [{"functionCall": {"name": "f"}}],
        [{"text": "hi"}, {"function_call": {"name": "f"}}],
        [{"functionResponse": {"name": "f", "id": "1", "response": {}}}],
        [{"text": "hi"}, {"function_response": {"name": "f", "id": "1", "response": {}}}],
    ],
)
def test_a_message_that_cannot_be_the_first_resurrects_only_within_the_limits(
    limited_server, run, parts
):
    """Seen to fail where any message with parts resurrects: ADK refuses it, the session waits."""
    user = f"late-{run.__name__}-{len(str(parts))}"
    base = limited_server.path(user=user)
    ids = [limited_server.client.post(base).json()["id"] for _ in range(3)]
    key = {"appName": "parrot", "userId": user, "sessionId": ids[0]}
    refused = run(limited_server, key, {"role": "user", "parts": parts})
    assert refused.status_code == 429, refused.text
    assert limited_server.client.get(f"{base}/{ids[0]}/lifecycle").json()["status"] == "expired"
    assert run(limited_server, key, HELLO).status_code == 200
    assert limited_server.client.get(f"{base}/{ids[0]}/lifecycle").json()["status"] == "used"


def test_a_change_of_state_that_would_make_a_session_used_is_refused(limited_server):
    """Seen to fail when a large `PATCH` counts as use: the session was kept for good."""
    base = limited_server.path(user="patcher")
    path = f"{base}/{limited_server.client.post(base).json()['id']}"
    large = {"stateDelta": {"k": "x" * 300_000}}
    for body, status in ((large, 413), ({"stateDelta": {"k": "v"}}, 200), (large, 413)):
        answer = limited_server.client.patch(path, json=body)
        assert answer.status_code == status, answer.text
    assert "waits for its first message" in answer.json()["detail"]
    record = limited_server.client.get(f"{path}/lifecycle").json()
    assert (record["status"], record["hasMessages"]) == ("waiting", False)


def test_a_create_request_with_reuse_returns_the_newest_empty_session(limited_server):
    base = limited_server.path(user="again")
    made = limited_server.client.post(base).json()["id"]
    reuse = {"options": {"reuse": True}}
    assert [limited_server.client.post(base, json=reuse).json()["id"] for _ in range(5)] == [
        made
    ] * 5
    wrong = limited_server.client.post(base, json={"options": {"reuse": "yes"}})
    assert (wrong.status_code, "reuse" in wrong.json()["detail"]) == (400, True)


def test_a_flood_of_creations_leaves_only_what_the_quota_allows_and_no_memory_growth(
    limited_server,
):
    """Also no log: seen to fail, by a traceback for each, with an error that ADK does not know."""
    base = limited_server.path(user="flood")
    for _ in range(100):
        limited_server.client.post(base)
    before, logged = resident(limited_server), limited_server.log_file.stat().st_size
    statuses = [limited_server.client.post(base).status_code for _ in range(FLOOD)]
    assert set(statuses) <= {200, 429}
    assert statuses.count(429) >= FLOOD - 20
    assert resident(limited_server) - before < RSS_GROWTH
    assert limited_server.log_file.stat().st_size - logged < 10_000
    with closing(sqlite3.connect(limited_server.folder / "lapse.db")) as connection:
        query = "SELECT status, count(*) FROM lapse_lobby WHERE user_id = 'flood' GROUP BY status"
        rows = dict(connection.execute(query).fetchall())
    assert rows["waiting"] == 2
    assert sum(rows.values()) < 40
    assert limited_server.metric('lapse_creates_refused_total{limit="user"}') >= FLOOD - 20


def resident(server: Server) -> int:
    """Return how many KiB of memory a server has."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


# Users, services and operators.


class Badges:
    """An authenticator: a badge is a name and a role."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        name, _, role = connection.headers["badge"].partition(":")
        return Principal(name, Role(role))


@pytest.fixture
async def known_callers(tmp_path):
    """A client of a server that knows its callers by their badges."""
    app = Lapse(f"sqlite:///{tmp_path}/lapse.db", Settings(horizon="2", ttl="30")).app(
        AGENTS, authentication=Authentication(Badges())
    )
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


@pytest.mark.filterwarnings("ignore")  # what ADK calls itself
async def test_a_user_may_not_ask_for_a_ttl_beyond_the_restore_time(known_callers):
    """Seen to fail with the 30 days that everybody had."""
    base = "/apps/parrot/users/ann/sessions"

    async def create(badge, minutes):
        options = {"options": {"ttl_minutes": minutes}}
        return await known_callers.post(base, json=options, headers={"badge": badge})

    async def amend(badge, minutes):
        path = f"{base}/{made.json()['id']}/lifecycle"
        return await known_callers.patch(
            path, json={"ttlMinutes": minutes}, headers={"badge": badge}
        )

    made = await create("ann:user", 120)
    assert made.status_code == 200
    for ask, field in ((create, "ttl_minutes"), (amend, "ttlMinutes")):
        refused = await ask("ann:user", 121)
        assert refused.status_code == 400
        reason = f"{field}: must be above 0 and at most 120 minutes, not 121"
        assert refused.json()["detail"].endswith(reason)
        for badge in ("bot:service", "op:operator"):
            assert (await ask(badge, 43_200)).status_code == 200
    answer = await amend("ann:user", 120)
    assert (answer.status_code, answer.json()["ttlMinutes"]) == (200, 120)


# Addresses: an application of one's own, for its peers can be made up.


async def created_from(app: FastAPI, peer: str, *forwarded: str) -> int:
    """Create a session of a new user from an address; return the status."""
    transport = httpx.ASGITransport(app=app, client=(peer, 4711))
    headers = [("x-forwarded-for", value) for value in forwarded]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        created_from.users += 1
        path = f"/apps/app/users/u{created_from.users}/sessions"
        return (await client.post(path, headers=headers)).status_code


created_from.users = 0


@pytest.fixture
async def own_app():
    """A function that makes an application with two creations a minute for each address."""
    services = []

    def make(*proxies: str) -> FastAPI:
        store = store_with_parts("sqlite:///:memory:")
        service = LapseSessionService(store, quotas=Quotas(creates_per_address=2))
        services.append(service)
        app = FastAPI()
        mount(app, service, Settings(auth_proxies=",".join(proxies)), apps=["app"])

        @app.post("/apps/{app_name}/users/{user_id}/sessions")
        async def create(app_name: str, user_id: str) -> str:
            return (await service.create_session(app_name=app_name, user_id=user_id)).id

        return app

    yield make
    for service in services:
        await service.close()


async def test_creations_are_counted_by_the_address_of_the_peer(own_app):
    app = own_app()
    assert [await created_from(app, "203.0.113.9") for _ in range(3)] == [200, 200, 429]
    assert await created_from(app, "203.0.113.8") == 200
    assert [await created_from(app, f"2001:db8::{n}") for n in range(3)] == [200, 200, 429]
    assert await created_from(app, "2001:db8:0:1::") == 200


async def test_a_forged_forwarding_header_does_not_evade_the_limit(own_app):
    """Seen to fail with the leftmost address of the header."""
    app = own_app()
    statuses = [await created_from(app, "203.0.113.9", f"198.51.100.{n}") for n in range(3)]
    assert statuses == [200, 200, 429]
    app = own_app("10.0.0.0/8")
    statuses = [
        await created_from(app, "10.0.0.1", f"198.51.100.{n}, 203.0.113.9") for n in range(3)
    ]
    assert statuses == [200, 200, 429]


async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(own_app):
    app = own_app("10.0.0.0/8")
    statuses = [await created_from(app, "10.0.0.1", f"198.51.100.{n}") for n in range(4)]
    assert statuses == [200] * 4


async def test_a_warning_about_an_untrusted_proxy_is_logged_once(own_app, caplog):
    app = own_app()
    for number in range(3):
        await created_from(app, "10.0.0.1", f"198.51.100.{number}")
    told = [record.message for record in caplog.records if "X-Forwarded-For" in record.message]
    assert len(told) == 1
    assert "LAPSE_AUTH_PROXIES" in told[0]
