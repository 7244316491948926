"""What works on ADK's tables alone says "not with this service" where another one has them."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from google.adk.sessions.in_memory_session_service import InMemorySessionService

from adk_builders import APP, USER, create_session, message_event
from calling import Caller
from lapse import Lapse, Settings, mount, store_from_url
from lapse.adk.conversing import ConversingSessionService
from lapse.core.errors import NotWithThisServiceError, SettingsError
from lapse.databases.copy import copy_database

URI = "LAPSE_CONVERSATIONS_URI"
COMMANDS = {
    "adopt": ("adopt", "--yes"),
    "adopt, only to see": ("adopt", "--dry-run", "--json"),
    "undo": ("undo",),
    "undo of a run": ("undo", "--run", "r1"),
    "copy": ("copy", "{url}", "sqlite:///copy.db"),
}


class Untelling(InMemorySessionService):
    """Tells no user's state, as ADK's Vertex AI service does not."""

    async def get_user_state(self, **_):
        raise NotImplementedError("it enumerates no sessions")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path, store_url, reopen):
    """Commands on a store of which another service has a used session."""
    monkeypatch.chdir(tmp_path)

    async def fill():
        other = InMemorySessionService()
        async with Lapse(store_url, Settings(sweeper=False), conversations=other) as lapse:
            session = await create_session(lapse.sessions)
            await lapse.sessions.append_event(session, message_event())

    asyncio.run(fill())
    return Caller(monkeypatch, capsys, store_url)


def sentence(done):
    assert (done.status, done.out) == (1, "")
    (told,) = done.err.splitlines()
    assert told.startswith("lapse: not with this service: ")
    return told


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("how", ["the setting says so", "only the store tells it"])
def test_a_command_for_adks_tables_is_refused_in_one_sentence(command, tmp_path, name, how):
    """Seen to fail with the commands as they were, for each of them.

    Without the refusal a copy has first messages on their way without the messages.
    """
    arguments = [part.format(url=command.url) for part in COMMANDS[name]]
    named = {URI: "memory://"} if how == "the setting says so" else {}
    if name == "undo" and not named:
        assert command(*arguments).out == "nothing was adopted in this database\n"
        return
    told = sentence(command(*arguments, **named))
    assert "another session service" in told
    assert (f"lapse {arguments[0]}" in told) or "this command" in told
    assert not list(tmp_path.glob("copy.db*"))


def test_a_copy_in_python_is_refused_too(command):
    async def copied():
        with pytest.raises(NotWithThisServiceError, match="has 1 session of"):
            await copy_database(command.url, "sqlite:///copy.db")

    asyncio.run(copied())


def of_the_uri(url):
    Lapse(url, Settings(conversations_uri="memory://", adopt="new"))


def of_the_argument(url):
    Lapse(url, Settings(adopt="new"), conversations=InMemorySessionService())


def of_a_service(url):
    service = ConversingSessionService(store_from_url(url), InMemorySessionService())
    mount(FastAPI(), service, Settings(adopt="new"), apps=["app"])


@pytest.mark.parametrize("way", [of_the_uri, of_the_argument, of_a_service])
def test_continuous_adoption_is_refused_however_the_service_is_given(tmp_path, way):
    """Seen to fail with the settings' own look for the URI: two of the ways ignored LAPSE_ADOPT."""
    with pytest.raises(SettingsError, match="LAPSE_ADOPT: not with this service: ") as refused:
        way(f"sqlite:///{tmp_path}/lapse.db")
    assert len(refused.value.problems) == 1


async def test_what_a_service_cannot_tell_is_refused_in_python_and_over_http(tmp_path):
    url = f"sqlite:///{tmp_path}/lapse.db"
    async with Lapse(url, Settings(sweeper=False), conversations=Untelling()) as lapse:
        with pytest.raises(NotImplementedError, match="it does not tell a user's state"):
            await lapse.sessions.get_user_state(app_name=APP, user_id=USER)
    app, lapse = FastAPI(), Lapse(url, Settings(sweeper=False), conversations=Untelling())

    @app.get("/mine")
    async def mine():
        return await lapse.sessions.get_user_state(app_name=APP, user_id=USER)

    lapse.mount(app, apps=[APP])
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
    ):
        answered = await client.get("/mine")
    assert answered.status_code == 501
    assert answered.json() == {
        "detail": "not with this service: it does not tell a user's state; read that of a session"
    }


async def test_whoever_mounts_a_service_with_another_behind_it_is_not_warned(tmp_path, caplog):
    """Seen to fail without the service's own word: it was told to be without the other one."""
    url = f"sqlite:///{tmp_path}/lapse.db"
    service = ConversingSessionService(store_from_url(url), InMemorySessionService())
    session = await create_session(service)
    await service.append_event(session, message_event())
    app = FastAPI()
    mount(app, service, Settings(), apps=[APP])
    async with app.router.lifespan_context(app):
        await app.state.lapse.maintenance.run()
    assert "nobody can read them here" not in caplog.text
