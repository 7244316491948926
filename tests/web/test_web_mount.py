"""`lapse.mount`: Lapse's routes in an existing FastAPI application."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.runners import Runner

from adk_builders import APP, USER, create_session, eventually, get_session, message_event
from adk_versions import since_adk
from lapse import LapseSessionService, Settings, mount
from lapse.core.errors import InvalidValueError, StoreUnavailableError
from lapse.demo.agents.concierge.agent import root_agent
from parts import store_with_parts


@asynccontextmanager
async def serving(app):
    """Give a client of the application while its lifespan lasts."""
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


@pytest.fixture
def service(tmp_path):
    return LapseSessionService(store_with_parts(f"sqlite:///{tmp_path}/lapse.db"))


@pytest.fixture
def app(service):
    application = FastAPI()
    mount(application, service, apps=[APP])
    return application


def lifecycle_of(session):
    return f"/apps/{APP}/users/{USER}/sessions/{session.id}/lifecycle"


async def test_the_lifecycle_routes_answer(service, app):
    async with serving(app) as client:
        session = await create_session(service, metadata={"page": "home"})
        record = (await client.get(lifecycle_of(session))).json()
        assert (record["status"], record["metadata"]["page"]) == ("waiting", "home")
        await service.append_event(session, message_event())
        assert (await client.get(lifecycle_of(session))).json()["status"] == "used"


async def test_the_health_routes_answer(service, app):
    async with serving(app) as client:
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        await create_session(service)
        assert (
            f'lapse_sessions_created_total{{app="{APP}"}} 1.0'
            in (await client.get("/metrics")).text
        )


async def test_the_sweeper_runs_for_the_applications_lifetime(service, app):
    changes = []
    service.feed.subscribe(changes.append)

    async def expired():
        return [str(change.kind) for change in changes] == ["created", "expired"]

    async with serving(app):
        await create_session(service, ttl_minutes=0.01)
        await eventually(expired)


async def test_without_a_sweeper_deadlines_hold_and_the_application_is_ready(service):
    app = FastAPI()
    mount(app, service, Settings(sweeper=False), apps=[APP])
    async with serving(app) as client:
        session = await create_session(service, ttl_minutes=0.01)

        async def expired():
            return (await client.get(lifecycle_of(session))).json()["status"] == "expired"

        await eventually(expired)
        assert await get_session(service, session.id) is None
        assert (await service.store.expire_due(10)).value == 1
        assert (await client.get("/readyz")).status_code == 200


@since_adk("1.33", "a session service has no flush")
async def test_the_service_is_closed_with_the_application(service, app):
    async with serving(app):
        session = await create_session(service)
    await service.flush()
    with pytest.raises(StoreUnavailableError):
        await create_session(service)
    assert session.id


async def test_the_applications_own_lifespan_and_routes_go_on_working(service):
    steps = []

    @asynccontextmanager
    async def own(_app):
        session = await create_session(service)
        steps.append("store open at start")
        yield
        assert await get_session(service, session.id) is not None
        steps.append("store open at end")

    app = FastAPI(lifespan=own)

    @app.get("/mine")
    async def mine():
        return {"mine": True}

    mount(app, service, apps=[APP])
    async with serving(app) as client:
        assert (await client.get("/mine")).json() == {"mine": True}
    assert steps == ["store open at start", "store open at end"]


async def test_an_applications_own_routes_answer_lapses_errors(service, app):
    @app.post("/chat/{session_id}")
    async def chat(session_id: str):
        session = await get_session(service, session_id)
        if session is None:
            raise SessionNotFoundError(session_id)
        return await service.append_event(session, message_event())

    @app.post("/open")
    async def open_one(minutes: float):
        return await create_session(service, ttl_minutes=minutes)

    async with serving(app) as client:
        answer = await client.post("/chat/none")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Session not found"})
        answer = await client.post("/open", params={"minutes": -1})
        assert answer.status_code == 400
        assert "ttl_minutes" in answer.json()["detail"]
        session = (await client.post("/open", params={"minutes": 5})).json()
        assert (await client.post(f"/chat/{session['id']}")).status_code == 200


async def test_a_store_that_does_not_answer_is_a_503(service, app):
    async with serving(app) as client:
        session = await create_session(service)
        await service.store.close()
        answer = await client.get(lifecycle_of(session))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert "store" in answer.json()["detail"]
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "store" in ready.json()


async def test_sessions_get_the_ttl_of_their_service(tmp_path):
    store = store_with_parts(f"sqlite:///{tmp_path}/lapse.db")
    service = LapseSessionService(store, ttl=timedelta(minutes=7))
    app = FastAPI()
    mount(app, service, apps=[APP])
    async with serving(app) as client:
        session = await create_session(service)
        assert (await client.get(lifecycle_of(session))).json()["ttlMinutes"] == 7


async def test_an_application_with_runners_has_the_routes_of_runs(service):
    runner = Runner(app_name="concierge", agent=root_agent, session_service=service)
    app = FastAPI()
    mount(app, service, runners=[runner])
    run = f"/apps/concierge/users/{USER}/sessions/tea/run"
    async with serving(app) as client:
        told = (await client.post(run, json={"message": "A table for 4"})).json()
        assert told["success"]
        stream = (await client.get(told["stream"])).text
        assert "reservation 1 for 4 guests" in stream
        assert "event: done" in stream
        other = run.replace("concierge", "other")
        assert (await client.post(other, json={"message": "hi"})).status_code == 404


async def test_an_application_without_runners_has_no_routes_of_runs(app):
    async with serving(app) as client:
        run = f"/apps/{APP}/users/{USER}/sessions/tea/run"
        assert (await client.post(run, json={"message": "hi"})).status_code == 404


async def test_an_application_serves_only_the_apps_that_it_names(service):
    """Seen to fail without ServedAppsMiddleware: sessions of any app in the store are shown."""
    app, names = FastAPI(), [APP]
    mount(app, service, apps=names)
    async with serving(app) as client:
        for name in (APP, "other"):
            await service.create_session(app_name=name, user_id=USER, session_id="s")
        path = f"/apps/{{}}/users/{USER}/sessions/s/lifecycle"
        assert (await client.get(path.format(APP))).status_code == 200
        told = await client.get(path.format("other"))
        assert told.json() == {"detail": "App 'other' is not served here; ask for one that is"}
        assert told.status_code == 404
        names.append("other")
        assert (await client.get(path.format("other"))).status_code == 200


def test_mount_refuses_an_application_that_names_no_apps(service):
    with pytest.raises(InvalidValueError, match="apps: must name"):
        mount(FastAPI(), service)


@pytest.mark.filterwarnings("ignore")  # what ADK calls itself
@since_adk("2.8", "a folder without an agent is listed")
async def test_an_application_of_adks_serves_the_apps_that_its_loader_lists(service, tmp_path):
    from google.adk.cli.fast_api import get_fast_api_app

    for name in ("shop", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "shop" / "agent.py").write_text("")
    (tmp_path / "script.py").write_text("raise AssertionError('it was imported')")
    app = get_fast_api_app(agents_dir=str(tmp_path), web=False, session_service_uri="memory://")
    mount(app, service, apps=["more"])
    async with serving(app) as client:
        for name in ("shop", "more", "notes", "script", "__agent"):
            await service.create_session(app_name=name, user_id=USER, session_id="s")
        asked = {
            name: (await client.get(f"/apps/{name}/users/{USER}/sessions/s/artifacts")).status_code
            for name in ("shop", "more", "notes", "script", "__agent")
        }
    assert asked == {"shop": 200, "more": 200, "notes": 404, "script": 404, "__agent": 404}


async def test_who_caused_a_fault_is_told_that_the_connection_will_be_closed(app):
    """Seen to fail without the handler: a next request on the connection is reset."""

    @app.get("/faulty")
    def faulty():
        fault = "at home"
        raise RuntimeError(fault)

    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/faulty")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["connection"] == "close"


async def test_an_applications_own_answer_to_a_fault_stays(service):
    application = FastAPI()

    @application.exception_handler(Exception)
    async def own(_request, _error):
        return JSONResponse({"own": True}, 500)

    @application.get("/faulty")
    def faulty():
        fault = "at home"
        raise RuntimeError(fault)

    mount(application, service, apps=[APP])
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert (await client.get("/faulty")).json() == {"own": True}
