"""The entrance of the operators' pages, which loads them at their first request."""

import asyncio
import threading

from fastapi import APIRouter, FastAPI
from httpx import ASGITransport, AsyncClient

from lapse.dashboard.entrance import Entrance


async def test_two_first_requests_load_once_and_others_are_answered_meanwhile():
    """Seen to fail without `to_thread`, and without the lock."""
    app, go_on, loads = FastAPI(), threading.Event(), []

    def load():
        loads.append(1)
        assert go_on.wait(10), "the loop is held up"
        router = APIRouter()
        router.add_api_route("/lapse/page", lambda: "page")
        return router

    app.router.routes.append(Entrance(app, load))
    app.add_api_route("/other", lambda: "other")
    app.add_api_route("/lapse/{later}", lambda later: later)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        first = [asyncio.ensure_future(client.get("/lapse/page")) for _ in range(2)]
        assert (await client.get("/other")).json() == "other"
        go_on.set()
        assert [answer.json() for answer in await asyncio.gather(*first)] == ["page", "page"]
        assert len(loads) == 1
        assert (await client.get("/lapse/mine")).json() == "mine"
    assert not any(isinstance(route, Entrance) for route in app.routes)
