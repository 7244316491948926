"""Errors of ADK reach the client as 4xx or 5xx, and name no folder of this server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import pytest
from fastapi import Depends, FastAPI
from google.adk.errors.not_found_error import NotFoundError
from pydantic import BaseModel, model_validator

from adk_builders import USER
from adk_versions import since_adk
from lapse import Lapse, ServerOptions
from lapse.adk.errors import NoSuchAgentError, without_paths
from lapse.adk.private.loaders import agent_loader

FAULTS = [AttributeError, KeyError, TypeError, ValueError, NotFoundError]
SESSIONS = f"/apps/concierge/users/{USER}/sessions"
UNREADABLE = {"newMessage": {"parts": [{"mediaProcessing": {}}]}}
UNREADABLE_BODY = {"detail": "body: must be one of this route; look at its OpenAPI document"}
"""ADK's model of it looks a dictionary up in an enum, and falls over it."""


@asynccontextmanager
async def asking(app):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


@pytest.fixture
def lapse(tmp_path):
    return Lapse(f"sqlite:///{tmp_path}/lapse.db")


class Fragile(BaseModel):
    """A body whose validator raises the error that the test names."""

    @model_validator(mode="before")
    @classmethod
    def _fall_over(cls, value):
        raise FAULTS[value["fault"]]("it fell over")


@pytest.fixture
def app(lapse):
    """Return an application with routes that fail before, in and after the endpoint."""
    own = FastAPI()

    def failing(fault: int):
        raise FAULTS[fault]("it fell over")

    @own.post("/body")
    async def body(_body: Fragile): ...

    @own.post("/dependency", dependencies=[Depends(failing)])
    async def dependency(): ...

    @own.post("/endpoint")
    async def endpoint(fault: int):
        failing(fault)

    @own.post("/thread")
    def thread(fault: int):
        failing(fault)

    @own.post("/answer")
    async def answer():
        return SimpleNamespace(bad=float("nan"), loop=answer)

    lapse.mount(own, apps=["app"])
    return own


@pytest.mark.parametrize("fault", range(len(FAULTS)))
async def test_an_error_before_the_endpoint_is_a_422_and_the_same_error_in_it_a_500(app, fault):
    """Broken on purpose: with the note that the endpoint has begun left out, all answer 422."""
    async with asking(app) as client:
        for _ in range(2):  # what one request did is not remembered of the next
            assert (await client.post("/body", json={"fault": fault})).status_code == 422
            told = await client.post(f"/dependency?fault={fault}")
            assert told.json() == UNREADABLE_BODY
            assert told.status_code == 422
            assert (await client.post(f"/endpoint?fault={fault}")).status_code == 500
            assert (await client.post(f"/thread?fault={fault}")).status_code == 500


async def test_an_answer_that_cannot_be_serialized_is_a_500(app):
    async with asking(app) as client:
        assert (await client.post("/answer")).status_code == 500


@pytest.mark.parametrize("detach", ["false", "true"])
@pytest.mark.parametrize("path", ["/run", "/run_sse", f"{SESSIONS}/s/run"])
async def test_a_body_that_makes_adks_models_raise_is_refused_by_every_route_that_runs(
    lapse, path, detach
):
    body = {"appName": "concierge", "userId": USER, "sessionId": "s"} | UNREADABLE
    async with asking(lapse.app()) as client:
        told = await client.post(path, json=body, headers={"Lapse-Detach": detach})
    assert told.status_code == 422
    assert told.json() == UNREADABLE_BODY


@pytest.fixture
def agents(tmp_path):
    """Return a folder of agents, none of which can be loaded."""
    folder = tmp_path / "agents"
    for name, text in {"nameless": "agent = 1\n", "broken": "raise ValueError('x')\n"}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "agent.py").write_text(text)
    return folder


@pytest.mark.parametrize("web", [False, True])
@pytest.mark.parametrize("name", ["nobody", "no-where", "nameless", "a/b", "."])
def test_the_error_of_an_unknown_agent_names_no_folder(agents, web, name):
    """Broken on purpose: with ADK's own text its last sentence names the folder."""
    with pytest.raises(NoSuchAgentError) as refused:
        agent_loader(agents, web=web).load_agent(name)
    assert repr(name) in str(refused.value)
    assert str(agents.parent) not in str(refused.value)


@pytest.mark.parametrize("web", [False, True])
@since_adk("2.12", "a loader raises the same error for both")
def test_an_agent_that_fails_to_load_is_not_reported_as_unknown(agents, web):
    with pytest.raises(RuntimeError):
        agent_loader(agents, web=web).load_agent("broken")


@pytest.mark.parametrize("name", ["nobody", "nameless"])
@since_adk("2.12", "some routes of ADK have no answer")
async def test_every_route_of_an_unknown_agent_answers_404(lapse, tmp_path, agents, name):
    """Broken on purpose: without the answer to NoSuchAgentError ADK's developer routes say 500."""
    run = {"appName": name, "userId": USER, "sessionId": "s", "newMessage": {"parts": []}}
    async with asking(
        lapse.app(agents, web=True, server=ServerOptions(artifact_service_uri="memory://"))
    ) as client:
        for told in (
            await client.get(f"/apps/{name}/app-info"),
            await client.get(f"/dev/apps/{name}/graph"),
            await client.post("/run", json=run),
        ):
            assert told.status_code == 404
            assert repr(name) in told.json()["detail"]
            assert str(tmp_path) not in told.text


@since_adk("2.12", "some routes of ADK have no answer")
async def test_an_application_with_a_loader_of_its_own_names_no_folder_either(lapse, agents):
    """Broken on purpose: without it an application that Lapse is only mounted in names it."""
    from google.adk.cli.fast_api import get_fast_api_app

    adks = get_fast_api_app(agents_dir=str(agents), web=False, session_service_uri="memory://")
    lapse.mount(adks)
    async with asking(adks) as client:
        told = await client.get("/apps/nameless/app-info")
    assert told.status_code == 404
    assert "'nameless'" in told.json()["detail"]
    assert str(agents.parent) not in told.text


def test_only_sentences_that_quote_an_absolute_path_are_left_out():
    assert without_paths("Not found: 'a.b'. It is not in '/srv/a'. Say so.") == (
        "Not found: 'a.b'. Say so."
    )
    assert without_paths(r"Not found. It is not in 'C:\srv\a'.") == "Not found."
    assert without_paths("No 'x/agent.py' here.") == "No 'x/agent.py' here."


@pytest.mark.filterwarnings("ignore:Duplicate Operation ID")  # ADK's
async def test_every_adk_route_that_takes_a_body_is_a_direct_route_of_the_application(lapse):
    """Lapse sees a route of the application itself; ADK has no nested routers."""
    app = lapse.app(web=True)
    direct = {getattr(route, "path_format", "") for route in app.routes}
    takes_body = {
        path
        for path, methods in app.openapi()["paths"].items()
        if any("requestBody" in method for method in methods.values())
    }
    lapses = {path for path in takes_body if path.endswith(("/lifecycle", "/{session_id}/run"))}
    assert {"/run", "/run_sse"} <= takes_body
    assert {path for path in takes_body - lapses if not path.startswith("/lapse/")} <= direct
