"""The headers that pages of other origins may read."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from lapse import Lapse, LapseSessionService, Settings, mount
from parts import store_with_parts
from run_reading import AGENTS, path
from served import Served

PAGE = {"Origin": "http://page.test"}
EXPOSED = {"lapse-run", "retry-after", "www-authenticate"}


def exposed(answer):
    given = answer.headers.get("access-control-expose-headers", "")
    return {name.strip().lower() for name in given.split(",") if name.strip()}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('exposed')}/lapse.db"
    lapse = Lapse(settings=Settings(store_url=url, creates_per_user=1))
    with Served(lapse.app(AGENTS, port=0, allow_origins=["http://page.test"])) as running:
        yield running


def test_a_page_of_another_origin_reads_the_run_and_when_to_come_again(served):
    """Seen to fail without `ExposedHeaders`: the header is not there."""
    answer = served.client.post(path("s"), json={"message": "hi"}, headers=PAGE)
    assert answer.headers["access-control-allow-origin"] == "http://page.test"
    assert answer.headers["Lapse-Run"]
    assert exposed(answer) == EXPOSED
    streamed = served.client.get(path("s"), headers=PAGE)
    assert streamed.headers["Lapse-Run"]
    assert exposed(streamed) == EXPOSED


def test_a_page_of_this_origin_needs_no_such_header(served):
    assert not exposed(served.client.get("/livez"))


async def test_what_the_application_exposes_itself_stays(tmp_path):
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["*"], expose_headers=["X-Own", "lapse-run"])
    mount(app, LapseSessionService(store_with_parts(f"sqlite:///{tmp_path}/l.db")), apps=["a"])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/livez", headers=PAGE)
    assert answer.headers["access-control-expose-headers"].startswith("X-Own, lapse-run, ")
    assert exposed(answer) == EXPOSED | {"x-own"}


def test_every_header_of_lapses_own_is_exposed():
    """Seen to fail with RUN_HEADER missing in the list."""
    from lapse.runs.answers import RUN_HEADER
    from lapse.web.middleware.headers import _EXPOSED

    assert RUN_HEADER in _EXPOSED
