"""Attacks that name an app which is not served: nothing is loaded, and no file is written."""

from __future__ import annotations

import json
from urllib.parse import quote

import httpx
import pytest
from canaries import SETTINGS, USER, bearer, message
from gemini import Gemini
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lapse import Lapse
from serving import copied_agents, serving

pytestmark = pytest.mark.long

BUILDER = "__adk_agent_builder_assistant"
"""ADK's own agent: it reads and writes files of the server, and what it writes the server runs."""

NOT_SERVED = "is not served here"
SECRET = "only-the-operators-may-read-this"
ROLES = ("user", "service", "operator")
NAMES = [
    *("wipe_all", "this", "antigravity", "pytest", "lapse", "notes", "tmp", "ghost"),
    *("parrot.agent", "parrot/agent", "agents.parrot", "PARROT", "parrot ", "par\u200brot", ".adk"),
    *("__ghost", "__init__", "__main__", "__pycache__", "__", "__agent ", f"{BUILDER}.tools"),
]
"""None is served. The first is a script in the agents' folder; the next are Python modules."""


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    """Return a folder that holds an agent, a script, and folders that are no agents."""
    folder = copied_agents(tmp_path_factory.mktemp("served") / "agents")
    (folder / "wipe_all.py").write_text("open('WIPED', 'w').close()")
    for left_over in ("this", "notes", "tmp"):
        (folder / left_over / ".adk").mkdir(parents=True)
    return folder


def everything_in(folder):
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def gemini():
    with Gemini("read_files", file_paths=["secret.txt"]) as running:
        yield running


@pytest.fixture(scope="module", params=["guarded", "open"])
def server(request, tmp_path_factory, agents, gemini):
    """Return a server with ADK's developer UI and a model, bound to this machine."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "secret.txt").write_text(SECRET)
    settings = SETTINGS if request.param == "guarded" else {}
    before = everything_in(agents)
    with serving(
        folder, str(agents), "--web", HOME=str(folder), **settings, **gemini.settings
    ) as running:
        running.guarded = bool(settings)
        yield running
        assert "Zen of Python" not in running.log
    assert not (folder / "WIPED").exists()
    assert everything_in(agents) == before


def callers(server):
    return [bearer(role) for role in ROLES] if server.guarded else [{}]


def requests(app):
    """Yield a request for each place in which an app is named."""
    named = quote(app, safe="")
    base, dev = f"/apps/{named}/users/{USER}", f"/dev/apps/{named}"
    session = f"{base}/sessions/s"
    artifact = {"filename": "a.txt", "artifact": {"text": "words"}}
    run = message(app, "s", "hello")
    snake = {"app_name" if name == "appName" else name: value for name, value in run.items()}
    yield "POST", f"{base}/sessions", {"sessionId": "s"}
    yield "POST", session, {}
    yield "GET", f"{base}/sessions", None
    yield "GET", session, None
    yield "PATCH", session, {"stateDelta": {"seen": 1}}
    yield "GET", f"{session}/artifacts", None
    yield "POST", f"{session}/artifacts", artifact
    yield "GET", f"{session}/artifacts/a.txt", None
    yield "DELETE", f"{session}/artifacts/a.txt", None
    yield "PATCH", f"{base}/memory", {"sessionId": "s"}
    yield "POST", f"{session}/run", {"message": "hello"}
    yield "GET", f"{session}/run", None
    yield "GET", f"{session}/lifecycle", None
    yield "POST", f"{session}/lifecycle/resurrect", None
    yield "GET", f"{session}/lifecycle/events", None
    yield "DELETE", session, None
    yield "GET", f"/apps/{named}/app-info", None
    yield "POST", f"/apps/{named}/trigger/pubsub", {}
    yield "GET", f"{dev}/builder?tmp=true", None
    yield "POST", f"{dev}/builder/cancel", None
    yield "GET", f"{dev}/graph", None
    yield "GET", f"{dev}/build_graph", None
    yield "PUT", f"{dev}/tests/some", {"sessionData": {}}
    yield "POST", f"{dev}/eval-sets", {"evalSet": {"evalSetId": "some", "evalCases": []}}
    yield "PUT", "/dev/apps/parrot/eval-sets/some/eval-cases/one", _case(appName=app)
    yield "PUT", "/dev/apps/parrot/eval-sets/some/eval-cases/one", _case(app_name=app)
    for path in ("/run", "/run_sse"):
        yield "POST", path, run
        yield "POST", path, snake


def _case(**app):
    return {"evalId": "one", "conversation": [], "sessionInput": app | {"userId": USER}}


def is_refused(answer):
    """Return whether nothing was done; 403 and 400 come before the app is looked at."""
    if answer.status_code == 404:
        return NOT_SERVED in answer.text or answer.json() == {"detail": "Not Found"}
    return answer.status_code in {400, 403}


@pytest.mark.parametrize("app", NAMES)
def test_an_app_that_is_not_served_is_refused_in_every_place_and_for_every_role(server, app):
    """Seen to fail without ServedAppsMiddleware: the script runs, and folders are created."""
    for headers in callers(server):
        for method, path, body in requests(app):
            answer = server.client.request(method, path, json=body, headers=headers)
            assert is_refused(answer), (headers, method, path, answer.status_code, answer.text)
        upload = {"files": (f"{app}/root_agent.yaml", b"name: x", "application/x-yaml")}
        path = f"/dev/apps/{quote(app, safe='')}/builder/save"
        assert is_refused(server.client.post(path, files=upload, headers=headers))
        for detached in ("/run", "/run_sse"):
            body = message(app, "s", "hello")
            asked = headers | {"Lapse-Detach": "true"}
            assert is_refused(server.client.post(detached, json=body, headers=asked))


@pytest.mark.parametrize(
    "query",
    ["app_name={}", "app_name=parrot&app_name={}", "app_name={}&app_name=parrot", "appName={}"],
)
def test_a_websocket_to_an_app_that_is_not_served_is_refused(server, query):
    """Seen to fail when only the first, or only the last, of two names is checked."""
    address = server.url.replace("http", "ws", 1)
    for app in NAMES:
        named = query.format(quote(app, safe=""))
        for headers in callers(server):
            asked = f"{address}/run_live?{named}&user_id={USER}&session_id=s&modalities=TEXT"
            with pytest.raises(InvalidStatus) as refused:
                connect(asked, additional_headers=headers, proxy=None)
            assert refused.value.response.status_code == 404
            assert NOT_SERVED in refused.value.response.body.decode()


@pytest.mark.parametrize("order", [1, -1])
def test_a_body_that_names_two_apps_is_refused(server, order):
    pairs = [("appName", "parrot"), ("appName", "wipe_all")][::order]
    rest = json.dumps(message("parrot", "s", "hello"))[1:].replace('"appName": "parrot", ', "")
    body = "{" + ", ".join(f'"{name}": "{value}"' for name, value in pairs) + ", " + rest
    headers = callers(server)[-1] | {"Content-Type": "application/json"}
    assert server.client.post("/run", content=body, headers=headers).status_code == 400


def test_adks_own_agent_answers_operators_only(server, gemini):
    """Seen to fail without ServedAppsMiddleware: a user reads the file, and so does a stranger."""
    session = f"/apps/{BUILDER}/users/{USER}/sessions/shared"
    state = {"root_directory": str(server.folder)}
    run = message(BUILDER, "shared", "read secret.txt")
    if server.guarded:
        trusted, others = bearer("operator"), [bearer("user"), bearer("service")]
    else:
        proxied = ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "Via")
        trusted, others = {}, [{name: "203.0.113.9"} for name in proxied]
    requests = [
        ("POST", session, state),
        ("POST", "/run", run),
        ("GET", f"/apps/{BUILDER}/app-info", None),
        ("GET", session, None),
        ("POST", "/run_sse", run),
        ("POST", f"{session}/run", {"message": "read secret.txt"}),
    ]

    def ask(headers, count):
        return [
            server.client.request(method, path, json=body, headers=headers)
            for method, path, body in requests[:count]
        ]

    for _ in range(2):  # the second time the session is there, and the agent is loaded
        before = gemini.asked
        for headers in others:
            for answer in ask(headers, len(requests)):
                assert is_refused(answer)
                assert SECRET not in answer.text
        assert gemini.asked == before
        _, answered, told = ask(trusted, 3)
        assert SECRET in answered.text
        assert told.status_code == 200


@pytest.mark.parametrize("web", [False, True])
async def test_without_authentication_adks_own_agent_answers_this_machine_only(tmp_path, web):
    """Seen to fail when the address of the peer is not checked."""
    agents = copied_agents(tmp_path / "agents")
    app = Lapse("sqlite:///:memory:").app(agents, web=web)
    path = f"/apps/{BUILDER}/users/{USER}/sessions"
    answers = {}
    async with app.router.lifespan_context(app):
        for peer in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "203.0.113.9", "fe80::1"):
            transport = httpx.ASGITransport(app, client=(peer, 5000))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1"
            ) as client:
                answers[peer] = (await client.get(path)).status_code
    here = 200 if web else 404
    assert answers == dict.fromkeys(answers, here) | {"203.0.113.9": 404, "fe80::1": 404}


@pytest.mark.parametrize("default", ["wipe_all", "this", BUILDER])
async def test_a_default_app_that_is_not_served_is_refused(tmp_path, monkeypatch, agents, default):
    """Seen to fail when a body that names no app is not checked: ADK's loader is asked."""
    monkeypatch.setenv("ADK_DEFAULT_APP_NAME", default)
    monkeypatch.chdir(tmp_path)
    before = everything_in(agents)
    app = Lapse("sqlite:///:memory:").app(agents)
    run = message("", "s", "hello")
    nameless = {name: value for name, value in run.items() if name != "appName"}
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answers = [
                await client.post(f"/users/{USER}/sessions", json={}),
                await client.get(f"/users/{USER}/sessions/s/artifacts"),
                await client.get("/app-info"),
                *[await client.post("/run", json=body) for body in (run, nameless)],
                await client.post("/run_sse", json=nameless),
                await client.post("/run_sse", json=nameless, headers={"Lapse-Detach": "true"}),
            ]
    assert [(answer.status_code, NOT_SERVED in answer.text) for answer in answers] == [
        (404, True)
    ] * len(answers)
    assert everything_in(tmp_path) == set()
    assert everything_in(agents) == before
