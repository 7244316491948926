"""An application that brings its own authenticator."""

import asyncio

import pytest
from fastapi import BackgroundTasks, FastAPI
from starlette.requests import HTTPConnection

from lapse import LapseSessionService, mount
from lapse.auth import Authentication
from lapse.auth.options import NotAuthenticatedError
from lapse.auth.principals import Principal, Role, current_principal
from parts import store_with_parts
from served import Served


class Badges:
    """An application's own authenticator: a badge is a name and a role."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        name, _, role = connection.headers.get("badge", "").partition(":")
        if not name:
            raise NotAuthenticatedError("show your badge", "Badge")
        return Principal(name, Role(role or "user"))


@pytest.fixture(scope="module")
def background_principals():
    return asyncio.Queue()


@pytest.fixture(scope="module")
def server(background_principals):
    app = FastAPI()

    @app.get("/mine/whoami")
    async def whoami(background: BackgroundTasks) -> str:
        async def tell():
            await background_principals.put(current_principal())

        background.add_task(tell)
        task = asyncio.create_task(asyncio.to_thread(current_principal))
        return f"{current_principal()} {await task == current_principal()}"

    @app.post("/mine/change")
    async def change() -> str:
        return "changed"

    @app.get("/open")
    async def anybody() -> str:
        return str(current_principal())

    @app.get("/forgotten")
    async def forgotten() -> str:
        raise AssertionError("nobody but an operator gets here")

    service = LapseSessionService(store_with_parts("sqlite:///:memory:"))
    authentication = Authentication(Badges(), open_paths=["/open"], shared_paths=["/mine/"])
    mount(app, service, apps=["a"], authentication=authentication)
    with Served(app) as running:
        yield running


def get(server, path, badge=""):
    return server.client.get(path, headers={"badge": badge} if badge else {})


def test_the_current_principal_is_known_in_a_route_its_tasks_and_its_threads(
    server, background_principals
):
    answer = get(server, "/mine/whoami", "ann")
    expected = Principal("ann")
    assert answer.json() == f"{expected} True"
    heard = asyncio.run_coroutine_threadsafe(background_principals.get(), server.loop).result(10)
    assert heard == expected


def test_a_caller_without_credentials_is_told_which_are_needed(server):
    answer = get(server, "/mine/whoami")
    assert (answer.status_code, answer.json()) == (401, {"detail": "show your badge"})
    assert answer.headers["WWW-Authenticate"] == "Badge"


def test_an_open_route_has_a_principal_without_a_name(server):
    assert get(server, "/open").json() == str(Principal(""))


def test_a_route_that_the_application_did_not_declare_is_for_operators_only(server):
    assert get(server, "/forgotten").status_code == 401
    assert get(server, "/forgotten", "ann").status_code == 403
    assert get(server, "/forgotten", "bot:service").status_code == 403
    assert get(server, "/nowhere", "root:operator").status_code == 404


def test_lapses_own_routes_are_behind_the_same_gate(server):
    path = "/apps/a/users/ann/sessions/s/lifecycle"
    unknown, foreign = get(server, path, "ann"), get(server, path, "bob")
    assert unknown.status_code == foreign.status_code == 404
    assert unknown.content == foreign.content
    assert get(server, path).status_code == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("{url}", 200),
        ("https{host}", 200),
        ("http://evil.test", 401),
        ("http://[", 401),
        ("null", 401),
        ("", 401),
        (None, 401),
    ],
)
def test_credentials_that_a_browser_adds_by_itself_count_from_this_origin_only(
    server, origin, status
):
    headers = {"badge": "ann", "cookie": "a=b"}
    if origin is not None:
        host = server.origin.removeprefix("http")
        headers["origin"] = origin.replace("{url}", server.origin).replace("{host}", host)
    assert server.client.post("/mine/change", headers=headers).status_code == status
    bearer = headers | {"authorization": "Bearer x"}
    assert server.client.post("/mine/change", headers=bearer).status_code == 200
