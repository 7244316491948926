"""An application below a path prefix works as it does at the root.

The tests over HTTP run below a prefix as a whole, too: `pytest --prefix /api` in `make test-long`.
"""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from websockets.sync.client import connect

import prefixed
from adk_versions import since_adk
from lapse import Lapse, Settings
from lapse.core.keys import SessionKey
from lapse.store.sessions import Sessions
from served import Served
from serving import AGENTS, USER

TOKEN = "operators-token-0123456789"
PREFIX = "/api"
SESSIONS = f"/apps/parrot/users/{USER}/sessions"


class Placed:
    """A served application; what it tells in paths is asked for by `told`."""

    def __init__(self, served, lapse, place):
        self.served, self.lapse = served, lapse
        # A proxy in front of a server with a `root_path` takes the prefix off.
        self.url = served.url + (PREFIX if place == "mounted" else "")
        self.client = served.client
        self.client.base_url = self.url

    def told(self, path):
        """Ask for a path that was told, as a page below the prefix does."""
        assert path.startswith(f"{PREFIX}/"), path
        return self.client.get(path.removeprefix(PREFIX))

    def create(self, session):
        answer = self.client.post(SESSIONS, json={"sessionId": session})
        assert answer.status_code == 200, answer.text

    def expired(self, session):
        self.create(session)
        work = Sessions(self.lapse.store).expire(SessionKey("parrot", USER, session))
        asyncio.run_coroutine_threadsafe(work, self.served.loop).result(30)
        assert self.status(session) == "expired"

    def status(self, session):
        return self.client.get(f"{SESSIONS}/{session}/lifecycle").json()["status"]


@pytest.fixture(scope="module", params=["mounted", "root_path"])
def placed(request, tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('placed')}/lapse.db"
    lapse = Lapse(settings=Settings(store_url=url, admin_token=SecretStr(TOKEN)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADK_DEFAULT_APP_NAME", "parrot")
        app = lapse.app(AGENTS, port=0, chat_page="parrot")
    below = {"root_path": PREFIX} if request.param == "root_path" else {}
    app = prefixed.below(app, PREFIX) if request.param == "mounted" else app
    with Served(app, **below) as served:
        yield Placed(served, lapse, request.param)


def run_body(session, **more):
    message = {"role": "user", "parts": [{"text": "hello"}]}
    ids = {"appName": "parrot", "userId": USER, "sessionId": session}
    return {**ids, "newMessage": message, **more}


@pytest.mark.parametrize("way", ["run", "run_sse", "detached"])
def test_a_run_resurrects_its_session(placed, way):
    """Seen to fail with the whole path in `RunSessionMiddleware`: 404."""
    placed.expired(f"revived-by-{way}")
    headers = {"Lapse-Detach": "true"} if way == "detached" else {}
    path = "/run_sse" if way == "detached" else f"/{way}"
    answer = placed.client.post(path, json=run_body(f"revived-by-{way}"), headers=headers)
    assert answer.status_code == 200
    assert "heard: hello" in answer.text
    assert placed.status(f"revived-by-{way}") == "used"
    if way == "detached":
        assert answer.headers["Lapse-Run"]


def test_a_live_connection_resurrects_its_session(placed):
    """Seen to fail with the whole path in `RunSessionMiddleware`: closed with 1002."""
    placed.expired("live")
    query = f"app_name=parrot&user_id={USER}&session_id=live&modalities=TEXT"
    url = f"{placed.url.replace('http', 'ws')}/run_live?{query}"
    with connect(url, proxy=None, close_timeout=1) as socket:
        socket.send(json.dumps({"content": {"role": "user", "parts": [{"text": "hi"}]}}))
        assert any("heard: hi" in frame for frame in iter(lambda: socket.recv(20), None))


def test_bounds_hold(placed):
    """Seen to fail with the whole path in `BodyMiddleware`: 200, 200 and 422."""
    placed.create("bounded")
    large = json.dumps({"stateDelta": {"k": "x" * 1_100_000}})
    kind = {"Content-Type": "application/json"}
    answer = placed.client.patch(f"{SESSIONS}/bounded", content=large, headers=kind)
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "body: must be at most 1048576 bytes here (LAPSE_MAX_STATE_KIB)",
    )
    twice = placed.client.post("/run", json=run_body("bounded", user_id="eve"))
    assert (twice.status_code, twice.json()) == (400, {"detail": "userId: must be given once"})
    dots = placed.client.post(
        f"{SESSIONS}/bounded/artifacts", json={"filename": "a/../b", "artifact": {"text": "t"}}
    )
    assert dots.status_code == 400


def test_an_app_that_is_not_served_is_refused(placed):
    """Seen to fail with the whole path in `ServedAppsMiddleware`."""
    answer = placed.client.get(f"/apps/other/users/{USER}/sessions")
    assert answer.json() == {"detail": "App 'other' is not served here; ask for one that is"}


def test_the_told_stream_carries_the_prefix(placed):
    """Seen to fail without `root_of` in the routes of runs: 404 below the prefix."""
    told = placed.client.post(f"{SESSIONS}/told/run", json={"message": "hello"}).json()
    assert "event: done" in placed.told(told["stream"]).text


def test_the_operators_pages_carry_the_prefix(placed):
    asked = placed.client.get("/lapse/acts")
    there = urlsplit(asked.headers["Location"])
    assert (asked.status_code, there.path) == (303, f"{PREFIX}/lapse/login")
    form = placed.told(f"{there.path}?{there.query}")
    then = re.search(r'name="then" value="([^"]+)"', form.text)[1]
    answer = placed.client.post(
        "/lapse/login",
        data={"token": TOKEN, "then": then},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert answer.headers["Location"] == f"{PREFIX}/lapse/acts"
    assert f"Path={PREFIX}/lapse/;" in answer.headers["Set-Cookie"]
    page = placed.client.get(
        "/lapse/", headers={"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    )
    links = re.findall(r'(?:href|src|action|hx-get)="(/[^"?]*)', page.text)
    assert links
    assert all(link.startswith(f"{PREFIX}/lapse/") for link in links)


def test_pages_and_scripts_name_nothing_from_the_root(placed):
    page = placed.client.get("/")
    assert page.status_code == 200
    assert not re.findall(r'(?:href|src|action)="/', page.text)
    assert placed.client.get("/lapse/client.js").status_code == 200


def test_notices_come_and_the_application_is_ready(placed):
    placed.create("watched")
    assert placed.client.get("/readyz").status_code == 200
    with placed.client.stream("GET", f"{SESSIONS}/watched/lifecycle/events") as stream:
        assert any("event: lifecycle" in line for line in stream.iter_lines())


@since_adk("2.1", "each request names its app")
def test_a_path_without_an_app_is_of_the_default_app(placed):
    """Seen to fail without `DefaultAppMiddleware`: 404, because ADK looks at the whole path."""
    placed.create("default")
    asked = placed.client.get(f"/users/{USER}/sessions/default")
    assert (asked.status_code, asked.json()["id"]) == (200, "default")
