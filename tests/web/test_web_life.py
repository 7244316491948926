"""What works beside requests: with and without a lifespan, and when the server stops."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import subprocess
import sys
from contextlib import ExitStack

import httpx
import pytest
from fastapi import FastAPI

from lapse import Lapse, LapseSessionService, Settings, mount
from parts import store_with_parts
from run_reading import AGENTS as WALKERS
from run_reading import path
from served import Served
from serving import AGENTS, USER, environment, eventually

SESSIONS = f"/apps/parrot/users/{USER}/sessions"
PROGRAM = """
from fastapi import FastAPI
from lapse import Lapse
inner = Lapse().app({agents!r}, port=0)
outer = FastAPI()
outer.mount("/api", inner)
"""


def lapse_in(folder, **settings):
    return Lapse(settings=Settings(store_url=f"sqlite:///{folder}/lapse.db", **settings))


@pytest.fixture
def mounted(tmp_path):
    """An application in another one that does not pass its lifespan on, and its service."""
    lapse = lapse_in(tmp_path)
    outer = FastAPI()
    outer.mount("/api", lapse.app(AGENTS, port=0))
    with Served(outer) as served:
        served.client.base_url = f"{served.url}/api"
        yield served, lapse


def test_without_a_lifespan_everything_begins_with_the_first_request(mounted, caplog):
    """Seen to fail without `LifeMiddleware`: 503 of /readyz and of …/run, no notice, no sweep."""
    served, lapse = mounted
    client = served.client
    expired = []
    lapse.feed.subscribe(lambda change: expired.append(str(change.kind)))
    assert client.get("/readyz").json() == {"status": "ready"}
    short = client.post(SESSIONS, json={"options": {"ttl_minutes": 0.02}}).json()["id"]
    with client.stream("GET", f"{SESSIONS}/{short}/lifecycle/events") as stream:
        kinds = (line for line in stream.iter_lines() if line.startswith("event:"))
        assert next(kinds) == "event: lifecycle"
        assert "event: expired" in kinds
    eventually(lambda: "expired" in expired)  # swept, and not only hidden
    told = client.post(f"{SESSIONS}/s/run", json={"message": "hello"}).json()
    assert "event: done" in client.get(told["stream"].removeprefix("/api")).text
    warned = [one for one in caplog.records if "lifespan has not run" in one.getMessage()]
    assert len(warned) == 1


async def test_requests_at_once_begin_it_once(tmp_path):
    lapse = lapse_in(tmp_path)
    transport = httpx.ASGITransport(app=lapse.app(AGENTS, port=0))
    begun = []
    begin = lapse.begin

    async def counted():
        begun.append(1)
        await begin()

    lapse.begin = counted
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answers = await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert begun == [1]


def test_it_begins_again_on_the_next_event_loop_and_ends_with_each(tmp_path):
    """Seen to fail without a look at the keeper's loop: the second loop has no sweeper."""
    lapse = lapse_in(tmp_path)
    app = lapse.app(AGENTS, port=0)

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get("/readyz")).status_code == 200
        assert lapse.sweeper.is_alive
        return asyncio.all_tasks()

    for _ in range(3):
        left = asyncio.run(ask())
        assert all(task.done() for task in left)
        assert not app.state.lapse_runs._heartbeat.is_running


async def test_it_goes_on_when_nobody_holds_the_application():
    """Seen to fail where the task waits for a future of its own: it is destroyed while pending."""
    service = LapseSessionService(store_with_parts("sqlite:///:memory:"))

    async def ask():
        app = FastAPI()
        mount(app, service, Settings(), apps=["app"])
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get("/readyz")).status_code == 200

    await ask()
    gc.collect()
    assert "lapse-without-lifespan" in [one.get_name() for one in asyncio.all_tasks()]
    await service.close()


async def test_where_a_lifespan_has_run_no_request_begins_anything(tmp_path, caplog):
    """Seen to fail without `_has_lifespan`: a request after the end begins it all again."""
    lapse = lapse_in(tmp_path)
    app = lapse.app(AGENTS, port=0)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        async with app.router.lifespan_context(app):
            assert (await client.get("/readyz")).status_code == 200
        await client.get("/livez")
    assert "the application's lifespan" not in caplog.text
    assert not [one for one in asyncio.all_tasks() if "lapse" in one.get_name()]


async def test_a_lifespan_that_comes_late_takes_over(tmp_path):
    lapse = lapse_in(tmp_path)
    app = lapse.app(AGENTS, port=0)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert (await client.get("/readyz")).status_code == 200
        async with app.router.lifespan_context(app):
            assert (await client.get("/readyz")).status_code == 200
            names = [one.get_name() for one in asyncio.all_tasks()]
            assert "lapse-without-lifespan" not in names


async def test_a_store_that_does_not_answer_holds_nobody_up(tmp_path):
    """The first request begins the work, which goes on trying; the process lives."""
    lapse = Lapse(settings=Settings(store_url="postgresql://nobody@127.0.0.1:9/none"))
    app = lapse.app(AGENTS, port=0)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        answer = await client.post(SESSIONS, json={})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


@pytest.mark.long
@pytest.mark.parametrize("target", ["inner", "outer"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_plain_uvicorn_stops_promptly_while_streams_are_open(tmp_path, target, sign):
    """Seen to fail without `before_server_stops`: it waits for the streams for ever."""
    (tmp_path / "program.py").write_text(PROGRAM.format(agents=str(AGENTS)))
    command = [sys.executable, "-m", "uvicorn", f"program:{target}", "--port", "0"]
    prefix = "/api" if target == "outer" else ""
    log = tmp_path / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=written, stderr=written
        )
    try:

        def announced():
            assert process.poll() is None, log.read_text()
            return next(
                (word for word in log.read_text().split() if word.startswith("http://")), None
            )

        url = eventually(announced, within=60)
        with httpx.Client(base_url=url + prefix, timeout=30, trust_env=False) as client:
            session = client.post(SESSIONS, json={}).json()["id"]
            with ExitStack() as stack:
                kept = []  # to let go of one closes the connection
                for _ in range(3):
                    asked = client.stream("GET", f"{SESSIONS}/{session}/lifecycle/events")
                    kept.append(stack.enter_context(asked).iter_lines())
                    assert any("lifecycle" in line for line in kept[-1])
                process.send_signal(sign)
                assert process.wait(timeout=10) in {0, -sign, 128 + sign}, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_run_stream_ends_when_the_server_stops(tmp_path):
    """Seen to fail without `drain` in `_end_streams`: the server waits for the run's reader.

    The run has the grace of the settings, and is then cancelled.
    """
    lapse = lapse_in(tmp_path, run_grace="0.2")
    server = Served(lapse.app(WALKERS, port=0))
    with server as served, ExitStack() as stack:
        told = served.client.post(path("s"), json={"message": "never"}).json()
        stream = stack.enter_context(served.client.stream("GET", told["stream"]))
        lines = stream.iter_lines()
        next(lines)
        server._server.should_exit = True
        assert "the server shut down" in "".join(lines)


def test_a_server_without_uvicorn_is_left_alone(caplog):
    """The search for a server finds none, and says nothing."""
    from lapse.web.server_stop import before_server_stops

    async def search():
        before_server_stops(lambda: asyncio.sleep(0))

    with caplog.at_level(logging.DEBUG, logger="lapse"):
        asyncio.run(search())
    assert not caplog.records
