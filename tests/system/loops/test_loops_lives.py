"""An application lives through any number of lifespans, each on an event loop of its own."""

from __future__ import annotations

import asyncio
import warnings
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI
from ways import APP, USER, held, none_are_left, runner_on, says

from lapse import LapseSessionService, mount
from lapse.store.options import ConnectionOptions
from parts import store_with_parts
from postgres import connections

LIVES = [pytest.param(2, id="a few"), pytest.param(1000, marks=pytest.mark.long, id="many")]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would like another HTTP client
    from starlette.testclient import TestClient

POOL = 3
BESIDE = 2
"""Connections that listen: one for the sweeper, one for streams of notices."""

pytestmark = [
    pytest.mark.timeout(900),
    # What a loop leaves that is closed with tasks in it, asyncio itself warns of.
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture
def service(store_url) -> LapseSessionService:
    return LapseSessionService(
        store_with_parts(store_url, options=ConnectionOptions(pool_size=POOL))
    )


@pytest.fixture
def app(service) -> FastAPI:
    app = FastAPI()
    runner = runner_on(service)
    mount(app, service, runners=[runner])

    @app.post("/make")
    async def make() -> str:
        return str((await service.create_session(app_name=APP, user_id=USER)).id)

    @app.post("/say/{session_id}")
    def say(session_id: str) -> list[str]:
        return says(runner, session_id, "hi")

    return app


@pytest.mark.parametrize("lives", LIVES)
def test_an_application_is_entered_and_left_by_tests_again_and_again(store_url, app, lives) -> None:
    """Seen to fail with a store whose `close` is for good."""

    def live() -> None:
        with TestClient(app) as client:
            session_id = client.post("/make").json()
            run = f"/apps/{APP}/users/{USER}/sessions/{session_id}/run"
            assert client.post(run, json={"message": "hi"}).status_code == 200
            assert client.get("/readyz").json() == {"status": "ready"}

    live()
    before = held()
    for _ in range(lives):
        live()
    assert none_are_left(store_url)
    after = held()
    assert after.threads <= before.threads
    assert after.files <= before.files + 2


@pytest.mark.parametrize("lives", LIVES)
def test_a_lifespan_for_each_invocation(store_url, app, lives) -> None:
    """As Mangum runs an application on AWS Lambda.

    Seen to fail with a store whose `close` is for good.
    """

    async def invoke() -> int:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
                session_id = (await client.post("/make")).json()
                path = f"/apps/{APP}/users/{USER}/sessions/{session_id}/lifecycle"
                return (await client.get(path)).status_code

    assert {asyncio.run(invoke()) for _ in range(lives)} == {200}
    assert none_are_left(store_url)


@pytest.mark.parametrize(
    "requests", [pytest.param(12, id="a few"), pytest.param(1000, marks=pytest.mark.long)]
)
def test_synchronous_routes_share_the_connections_of_their_server(store_url, app, requests) -> None:
    """Each request of a `def` route runs in a thread, and ADK's `Runner.run` makes a loop there.

    Seen to fail with a pool for each loop that nobody closes.
    """
    most = 0
    with TestClient(app) as client, ThreadPoolExecutor(6) as threads:
        for start in range(0, requests, 6):
            ids = [client.post("/make").json() for _ in range(6)]
            answers = threads.map(lambda one: client.post(f"/say/{one}"), ids)
            assert [answer.json() for answer in answers] == [["hi"]] * 6
            if not start % 60:
                most = max(most, connections(store_url))
        assert client.get("/readyz").status_code == 200
    assert most <= POOL + BESIDE
    assert none_are_left(store_url)


def test_an_application_that_was_left_by_a_crash_of_its_loop_is_entered_again(app) -> None:
    """Seen to fail with a Lapse that stays entered until it is left."""
    loop = asyncio.new_event_loop()
    entered = app.router.lifespan_context(app)
    loop.run_until_complete(entered.__aenter__())
    loop.close()
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
    del entered  # only now: it would leave its lifespan
