"""`lapse serve` takes the place of `adk api_server`: its options, and what they do."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields

import click
import httpx
import pytest
import typer
from fastapi import HTTPException
from google.adk.cli.cli_tools_click import cli_api_server
from google.adk.cli.fast_api import get_fast_api_app
from google.adk.cli.trigger_routes import GoogleOidcVerifier as Verifier

from lapse import Lapse, ServerOptions, Settings
from lapse.adk.private.servers import server_of
from lapse.cli.main import app as commands
from lapse.core.errors import InvalidValueError, SettingsError
from lapse.settings import load_settings
from serving import AGENTS, copied_agents, eventually

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

LEFT_OUT: dict[str, str] = {}
"""Options of `adk api_server` that `lapse serve` does not take, with the reason."""

NOT_TOLD = {
    "agents_dir": "`Lapse.app` passes its own folder on",
    "agent_loader": "Lapse's loader has errors that name no folder",
    "session_service_uri": "Lapse is the session service",
    "session_db_kwargs": "settings say how Lapse reaches its store",
    "artifact_service_uri": "Lapse makes the artifact service, to delete what is left over",
    "allow_origins": "`Lapse.app` has it",
    "web": "`Lapse.app` has it",
    "host": "`Lapse.app` has it",
    "bind_host": "`Lapse.app` has it as `host`",
    "port": "`Lapse.app` has it",
    "lifespan": "Lapse runs within the lifespan that ADK makes",
    "trigger_auth_verifier": "LAPSE_AUTH, or the OIDC audience, says who may trigger",
    "logo_text": "`adk api_server` does not have it",
    "logo_image_url": "`adk api_server` does not have it",
    "default_llm_model": "`adk api_server` does not have it",
}
"""Parameters of `get_fast_api_app` that no `ServerOptions` has, with the reason."""

VALUES = {"port": "1", "max_llm_calls": "1", "log_level": "INFO"}


def parsed(*arguments):
    """Return what `lapse serve` reads off its arguments, by parameter."""
    group = typer.main.get_command(commands)
    whole = group.make_context("lapse", ["serve"])
    return group.commands["serve"].make_context("serve", list(arguments), parent=whole).params


def not_taken(parameters):
    """Return what is wrong with each option of ADK's that `lapse serve` does not take as ADK does.

    Each spelling counts, with underscores and with hyphens.
    """
    wrong = {}
    for one in parameters:
        if isinstance(one, click.Argument):
            continue
        for spelt in (*one.opts, *one.secondary_opts):
            for option in {spelt, f"--{spelt[2:].replace('_', '-')}" if spelt[2:] else spelt}:
                given = [option] if one.is_flag else [option, VALUES.get(one.name, "text")]
                try:
                    parsed(*given)
                except Exception as error:  # noqa: BLE001 - whatever refuses an option
                    wrong[option] = str(error)
    return {option: why for option, why in wrong.items() if option not in LEFT_OUT}


def test_serve_takes_every_option_of_adks_server():
    """It fails when ADK adds one: take it, or give the reason in LEFT_OUT.

    Seen to fail without the two spellings.
    """
    assert not_taken(cli_api_server.params) == {}
    assert LEFT_OUT.keys() <= {option for one in cli_api_server.params for option in one.opts}


def test_an_option_that_adk_adds_is_noticed():
    added = [click.Option(["--new_thing"]), click.Option(["--other_thing"], is_flag=True)]
    assert not_taken(added).keys() == {
        *("--new_thing", "--new-thing", "--other_thing", "--other-thing"),
    }


def test_a_value_is_read_from_an_option_in_either_spelling():
    given = parsed("--artifact_service_uri=gs://a_b", "--session_service_uri", "sqlite:///x_y.db")
    assert given["artifact_service_uri"] == "gs://a_b"
    assert given["store"] == "sqlite:///x_y.db"
    assert parsed("--artifact-service-uri", "gs://a_b")["artifact_service_uri"] == "gs://a_b"
    assert parsed("--no_use_local_storage")["use_local_storage"] is False


def test_every_parameter_of_adks_application_is_an_option_or_has_a_reason_not_to_be():
    """Seen to fail with a field of `ServerOptions` taken away, and with one that ADK has not."""
    taken = set(inspect.signature(get_fast_api_app).parameters)
    options = {one.name for one in fields(ServerOptions)}
    assert taken - options <= NOT_TOLD.keys()
    assert options - taken == {"enable_features", "disable_features"}
    assert NOT_TOLD.keys() <= taken


def test_every_option_of_adks_application_is_an_option_of_serve_and_a_setting():
    given = parsed()
    for one in fields(ServerOptions):
        assert one.name in given
        assert Settings.model_fields[one.name].validation_alias == f"LAPSE_{one.name.upper()}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url_prefix": "adk"}, "url_prefix: must begin with /"),
        ({"trigger_sources": ("mail",)}, "trigger_sources: must be one of pubsub, eventarc"),
        ({"trigger_sources": ("pubsub",)}, "trigger_sources: needs trigger_oidc_audience"),
        ({"trigger_oidc_service_accounts": ("a@b.test",)}, "needs trigger_oidc_audience"),
        ({"task_store_uri": "memory://"}, "task_store_uri: needs a2a"),
        ({"express_mode": True}, "express_mode: needs gemini_enterprise_app_name"),
    ],
)
def test_options_that_make_no_sense_are_refused_where_they_are_given(options, says, monkeypatch):
    with pytest.raises(InvalidValueError, match=says):
        ServerOptions(**options)
    ((name, value),) = options.items()
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    monkeypatch.setenv(f"LAPSE_{name.upper()}", text)
    with pytest.raises(SettingsError, match=f"LAPSE_{name.upper()}"):
        load_settings()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"artifact_service_uri": "ftp://x"}, "artifact_service_uri: Unsupported"),
        ({"memory_service_uri": "ftp://x"}, "memory_service_uri: Unsupported"),
        ({"extra_plugins": ("no.such.Plugin",)}, "extra_plugins: 'no.such.Plugin' cannot be"),
        ({"extra_plugins": ("pathlib.Path",)}, "extra_plugins: 'pathlib.Path' is no plugin"),
        ({"enable_features": ("NOTHING",)}, "enable_features: ADK has no feature 'NOTHING'"),
        ({"avatar_config": "{1}"}, "avatar_config: must be JSON"),
        ({"avatar_config": "/no/such/file"}, "avatar_config: must be JSON, or a file of it"),
    ],
)
def test_what_adk_cannot_do_is_refused_in_one_sentence_that_names_the_option(
    options, says, tmp_path
):
    with pytest.raises(InvalidValueError, match=says):
        Lapse(f"sqlite:///{tmp_path}/x.db").app(AGENTS, server=ServerOptions(**options))


def test_a_package_that_an_option_needs_is_named_with_the_command_that_installs_it(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "a2a", None)
    for name in [name for name in sys.modules if name.startswith("a2a.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InvalidValueError, match=r"a2a: needs .*pip install 'google-adk\[a2a\]'"):
        Lapse(f"sqlite:///{tmp_path}/x.db").app(AGENTS, server=ServerOptions(a2a=True))


class Client(httpx.AsyncClient):
    """A client of an application in this process."""

    def __init__(self, app):
        super().__init__(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    async def say(self, session="s", text="hello", prefix=""):
        body = {
            "appName": "parrot",
            "userId": "ada",
            "sessionId": session,
            "newMessage": {"role": "user", "parts": [{"text": text}]},
        }
        return await self.post(f"{prefix}/run", json=body)


PATH = "/apps/parrot/users/ada/sessions/s"


async def test_replicas_share_an_upload_if_they_are_given_the_same_uri(tmp_path):
    """Seen to fail without the URI: the other replica answers 404."""
    url, shared = f"sqlite:///{tmp_path}/lapse.db", (tmp_path / "shared").as_uri()
    answers = {}
    for uri in (shared, None):
        told = ServerOptions(artifact_service_uri=uri)
        apps = [
            Lapse(url).app(copied_agents(tmp_path / f"{number}{bool(uri)}"), server=told)
            for number in range(2)
        ]
        async with (
            apps[0].router.lifespan_context(apps[0]),
            apps[1].router.lifespan_context(apps[1]),
            Client(apps[0]) as one,
            Client(apps[1]) as other,
        ):
            if uri:
                assert (await one.post(PATH, json={})).status_code == 200
            body = {"filename": f"{bool(uri)}.txt", "artifact": {"text": "words"}}
            assert (await one.post(f"{PATH}/artifacts", json=body)).status_code == 200
            answers[uri] = (await other.get(f"{PATH}/artifacts/{bool(uri)}.txt")).status_code
    assert answers == {shared: 200, None: 404}


@pytest.mark.parametrize(
    ("url", "uri", "lines"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", None, 1),
        ("postgresql://nobody@127.0.0.1:1/none", "memory://", 0),
        ("sqlite:///:memory:", None, 0),
    ],
)
def test_a_server_that_may_have_replicas_says_that_they_do_not_share_artifacts(
    caplog, url, uri, lines
):
    Lapse(url).app(AGENTS, server=ServerOptions(artifact_service_uri=uri))
    said = [one.message for one in caplog.records if "--artifact-service-uri" in one.message]
    assert len(said) == lines


async def test_a_plugin_serves_every_agent_and_agents_are_loaded_again_when_they_change(tmp_path):
    """Seen to fail with the options not passed on to ADK."""
    agents = copied_agents(tmp_path / "agents")
    (agents / "shouting.py").write_text(
        "from google.adk.plugins.base_plugin import BasePlugin\n"
        "class Shouting(BasePlugin):\n"
        "    async def on_event_callback(self, *, invocation_context, event):\n"
        "        for part in (event.content.parts if event.content else None) or ():\n"
        "            part.text = part.text and part.text.upper()\n"
    )
    told = ServerOptions(extra_plugins=("shouting.Shouting",), reload_agents=True)
    app = Lapse(f"sqlite:///{tmp_path}/lapse.db").app(agents, server=told)
    async with app.router.lifespan_context(app), Client(app) as client:
        await client.post(PATH, json={})
        answer = await client.say()
        assert "HEARD: HELLO" in answer.text
        server = server_of(app)
        (agents / "parrot" / "agent.py").touch()
        eventually(lambda: "parrot" in server.runners_to_clean)


async def test_a_trigger_of_pubsub_runs_an_agent_if_its_token_is_googles(tmp_path, monkeypatch):
    """Seen to fail, with LAPSE_AUTH, where triggers are for services: Google's token is foreign."""
    monkeypatch.setattr(Verifier, "__call__", lambda self, request: verified(request))

    async def verified(request):
        if request.headers.get("authorization") != "Bearer google":
            raise HTTPException(401)

    told = ServerOptions(trigger_sources=("pubsub",), trigger_oidc_audience="here")
    secret = {"jwt_key": "s" * 64, "jwt_algorithms": "HS256"}
    for auth in ({}, {"auth": "jwt", "jwt_audience": "a", "jwt_issuer": "i", **secret}):
        lapse = Lapse(f"sqlite:///{tmp_path}/{len(auth)}.db", Settings(**auth))
        app = lapse.app(AGENTS, server=told)
        async with app.router.lifespan_context(app), Client(app) as client:
            body = {"message": {"data": "aGVsbG8="}, "subscription": "projects/p/subscriptions/s"}
            path = "/apps/parrot/trigger/pubsub"
            assert (await client.post(path, json=body)).status_code == 401
            token = {"Authorization": "Bearer google"}
            answer = await client.post(path, json=body, headers=token)
            assert answer.status_code == 200, answer.text
            listed = await lapse.sessions.list_sessions(app_name="parrot")
            assert len(listed.sessions) == 1


async def test_a_run_creates_its_session_if_it_is_told_to(tmp_path):
    for is_told, status in ((True, 200), (False, 404)):
        told = ServerOptions(auto_create_session=is_told)
        app = Lapse(f"sqlite:///{tmp_path}/{is_told}.db").app(AGENTS, server=told)
        async with app.router.lifespan_context(app), Client(app) as client:
            assert (await client.say()).status_code == status
