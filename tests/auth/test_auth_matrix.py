"""Every route of the running application, called by every kind of caller."""

import re

import pytest
from fastapi.routing import APIWebSocketRoute, iter_route_contexts
from rows import ROWS, SERVED
from starlette.routing import Mount
from tokens import AUDIENCE, ISSUER, Issuer, bearer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lapse import Lapse, Settings
from served import Served
from serving import copied_agents

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

CANARY = "only-for-ann"
NOTHING_HERE = b'{"detail":"Not Found"}'
NOT_FOUND = b'{"detail":"Session not found"}'
NOT_SERVED = b"is not served here"
BUILDER = "__adk_agent_builder_assistant"
"""ADK's own agent, which reads and writes files of the server."""

REFUSED = ("anonymous", "expired", "wrong audience", "forged")
by_reach = {
    reach: [row for row in ROWS if row.reach == reach]
    for reach in ("open", "admission", "principals", "owner", "services", "operators")
}

naming_an_app = [row for row in ROWS if row.names_an_app]


@pytest.fixture(scope="module")
def callers(issuer):
    """Return the headers of each caller."""
    tokens = {
        "owner": issuer.token("ann"),
        "other user": issuer.token("bob"),
        "service": issuer.token("bot", realm={"roles": ["service"]}),
        "operator": issuer.token("root", realm={"roles": ["x", "operator"]}),
        "expired": issuer.token("ann", exp=1),
        "wrong audience": issuer.token("ann", aud="elsewhere"),
        "forged": Issuer().token("ann"),
    }
    return {"anonymous": {}} | {name: bearer(token) for name, token in tokens.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory, issuer):
    """Serve ADK's application as `lapse serve --web` does, with every optional route."""
    unlimited = ("waiting_per_user", "waiting_per_address", "creates_per_user")
    settings = Settings(
        auth="jwt",
        jwt_key=issuer.public_pem,
        jwt_algorithms="ES256",
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        jwt_role_claim="realm.roles",
        self_erasure=True,
        creates_per_address=0,
        **dict.fromkeys(unlimited, 0),
    )
    agents = copied_agents(tmp_path_factory.mktemp("matrix") / "agents")
    lapse = Lapse("sqlite:///:memory:", settings)
    with Served(lapse.app(agents, web=True, port=0, chat_page=SERVED)) as running:
        yield running
    made = {path.name for path in agents.iterdir()} - {"__pycache__"}
    assert made == {SERVED}, "a folder was made for an app that is not served"


@pytest.fixture
def session(server, callers):
    """Return a new session of Ann's."""

    def create():
        path = "/apps/parrot/users/ann/sessions"
        body = {"state": {"told": CANARY}}
        answer = server.client.post(path, json=body, headers=callers["owner"])
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    return create


@pytest.fixture
def ask(server, callers):
    """Return a function that sends a row's request as a caller; status, body and headers."""

    def send(row, caller, session_id="s", app=SERVED):
        headers = callers[caller]
        url = row.url(app, "ann", session_id)
        if row.method == "WS":
            return _websocket(server, callers[caller], app, session_id)
        method = "GET" if row.method == "MOUNT" else row.method
        body = row.body(app, "ann", session_id)
        with server.client.stream(method, url, headers=headers, json=body) as answer:
            endless = url.endswith("/events") and answer.status_code == 200
            content = b"" if endless else answer.read()
        return answer.status_code, content, answer.headers

    return send


def _websocket(server, headers, app, session_id):
    url = f"{server.url.replace('http', 'ws')}/run_live"
    query = f"app_name={app}&user_id=ann&session_id={session_id}&modalities=TEXT"
    try:
        with connect(f"{url}?{query}", additional_headers=headers, proxy=None) as socket:
            return 101, b"", socket.response.headers
    except InvalidStatus as refusal:
        response = refusal.response
        return response.status_code, response.body, response.headers


def test_every_route_has_a_row_in_the_matrix(server):
    """Seen to fail: a route that is added, and a row that is taken away."""
    listed = {
        f"{method.upper()} {path}"
        for path, one in server.app.openapi()["paths"].items()
        for method in one
    }
    for route in server.app.routes:
        match route:
            case APIWebSocketRoute():
                listed.add(f"WS {route.path}")
            case Mount():
                listed.add(f"MOUNT {route.path}")
    # Also those that are in no schema, and those of routers that are included.
    for route in iter_route_contexts(server.app.routes):
        methods = set(route.methods or ()) - {"HEAD"}
        listed |= {f"{method} {route.path}" for method in methods}
    plain = {re.sub(r":path}", "}", name) for name in listed}
    assert plain == {re.sub(r":path}", "}", row.name) for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_unauthenticated_caller_is_refused_on_every_route(row, ask):
    """Seen to fail: with `verify_aud`, then `verify_exp`, then the whole gate off."""
    answers = [ask(row, caller) for caller in REFUSED]
    if row.reach == "open":
        assert {status for status, *_ in answers} == {row.owner_status}
        return
    if row.reach == "admission":
        assert {answer[:2] for answer in answers} == {(404, NOTHING_HERE)}
        return
    for status, body, headers in answers:
        assert status == 401
        assert headers["WWW-Authenticate"].startswith('Bearer realm="lapse"')
        assert body.startswith(b'{"detail":"')
        assert CANARY.encode() not in body


@pytest.mark.parametrize("row", by_reach["owner"], ids=lambda row: row.name)
def test_a_users_routes_answer_the_user_and_those_who_may_act_for_them_only(row, ask, session):
    """Seen to fail: another user is let through, for the path, the body and the query each."""
    victim = session()
    before = ask(_READ, "owner", victim)[1]
    status, body, headers = ask(row, "other user", victim)
    unknown = ask(row, "other user", "no-such-session")
    assert (status, body) == (404, NOT_FOUND)
    assert (status, body, _lasting(headers)) == (*unknown[:2], _lasting(unknown[2]))
    assert ask(_READ, "owner", victim)[1] == before
    for caller in ("owner", "service", "operator"):
        assert ask(row, caller, session())[0] == row.owner_status


@pytest.mark.parametrize("row", naming_an_app, ids=lambda row: row.name)
def test_nobody_reaches_an_app_that_is_not_served(row, ask, session):
    """Seen to fail without ServedAppsMiddleware, and without its look at path, body or query."""
    owned = session()
    refused_before = {
        "owner": row.reach in {"services", "operators"},
        "service": row.reach == "operators",
        "operator": False,
    }
    for app in ("ghost", "this", "__ghost", "__pycache__", BUILDER):
        for caller, is_refused in refused_before.items():
            if app == BUILDER and caller == "operator":
                continue
            status, body, _ = ask(row, caller, owned, app=app)
            assert CANARY.encode() not in body
            expected = (403, False) if is_refused else (404, True)
            assert (status, NOT_SERVED in body) == expected, (app, caller)


def test_adks_own_agents_answer_operators(ask):
    """Seen to fail when nobody may use them."""
    for path in ("/apps/{app_name}/users/{user_id}/sessions", "/apps/{app_name}/app-info"):
        row = next(row for row in ROWS if row.name == f"GET {path}")
        assert ask(row, "operator", app=BUILDER)[0] == 200


@pytest.mark.parametrize(
    "row", by_reach["services"] + by_reach["operators"], ids=lambda row: row.name
)
def test_routes_about_many_users_answer_those_who_may_see_all_users_only(row, ask):
    """Seen to fail: `/dev` for everybody who is known."""
    told = b'{"detail":"users may not call this; ask as a service or an operator"}'
    assert ask(row, "owner")[:2] == (403, told)
    service = ask(row, "service")[0]
    assert (service == 403) == (row.reach == "operators")
    assert ask(row, "operator")[0] not in {401, 403}


@pytest.mark.parametrize("row", by_reach["admission"], ids=lambda row: row.name)
def test_routes_for_operators_answer_others_with_404(row, ask, session):
    session_id = session()
    for caller in ("owner", "other user", "service"):
        assert ask(row, caller, session_id)[:2] == (404, NOTHING_HERE)
    assert ask(row, "operator", session_id)[0] == row.owner_status


@pytest.mark.parametrize("row", by_reach["principals"], ids=lambda row: row.name)
def test_routes_that_concern_no_user_answer_every_authenticated_caller(row, ask):
    for caller in ("owner", "other user", "service", "operator"):
        assert ask(row, caller)[0] == row.owner_status


_READ = next(
    row
    for row in ROWS
    if row.name.endswith("/sessions/{session_id}") and row.method == "GET" and row.reach == "owner"
)


_PASSING = {"date", "connection"}


def _lasting(headers):
    """Return the headers of an answer but for its time and whether its request had arrived whole.

    The server closes a connection on which it has refused a request before the body came.
    """
    return (
        sorted(
            (name.lower(), value)
            for name, value in headers.raw_items()
            if name.lower() not in _PASSING
        )
        if hasattr(headers, "raw_items")
        else sorted(pair for pair in headers.multi_items() if pair[0] not in _PASSING)
    )
