"""The private names of other packages that Lapse uses, and what each one is for.

When a new version of ADK, FastAPI or uvicorn moves one, its sentence fails here; `adk/private.py`
is then the place to mend.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from fastapi import FastAPI
from google.adk.events.event import Event
from google.adk.sessions.session import Session
from google.genai import types

import lapse
from lapse.adk import private
from lapse.artifacts.sweeper import ArtifactService
from lapse.core.request import route_path

SOURCE = Path(lapse.__file__).parent
ADK_CLI = "google.adk.cli"


@dataclass(frozen=True)
class Name:
    """One name: where it is, what Lapse passes to it, and what for."""

    module: str
    path: str
    use: str
    parameters: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.path}"


SERVICE = "google.adk.sessions.base_session_service"
UVICORN = "uvicorn.protocols.http.httptools_impl"

NAMES = [
    Name(
        SERVICE,
        "BaseSessionService._apply_temp_state",
        "`append_event` puts an event's `temp:` state into the session object with it",
        ("session", "event"),
    ),
    Name(
        SERVICE,
        "BaseSessionService._trim_temp_delta_state",
        "`append_event` takes `temp:` state off an event with it before the event is stored",
        ("event",),
    ),
    Name(
        SERVICE,
        "BaseSessionService._commit_event_to_session",
        "`append_event` adds a stored event to the session object with it",
        ("session", "event"),
    ),
    Name(
        "google.adk.auth.auth_credential",
        "_redact_credential_secrets",
        "stored frames of a run black out secrets with it, as `/run_sse` does",
        ("value",),
    ),
    Name(
        "google.adk.events._internal_metadata",
        "public_event",
        "stored frames of a run leave out with it what `/run_sse` leaves out of an event",
        ("event",),
    ),
    Name(
        "google.adk.events._internal_metadata",
        "public_session",
        "answers with sessions leave out with it what ADK's leave out",
        ("session",),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_redacted_session_response",
        "ADK's routes answer with sessions by it; Lapse puts its own in its place",
        ("session",),
    ),
    Name(
        "fastapi.routing",
        "request_response",
        "ADK's routes get with it a request whose body was parsed before",
        ("func",),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_OriginCheckMiddleware",
        "plain requests pass this layer by; what it knows of hosts is asked beforehand",
        ("app", "has_configured_allowed_origins", "allowed_origins", "allowed_origin_regex"),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_DefaultAppRewriteMiddleware",
        "plain requests name their app, so they pass this layer by",
        ("app", "default_app_name"),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_is_dns_rebinding_request",
        "a plain request has a host that ADK does not refuse",
        ("scope", "bind_host", "allowed_request_hosts"),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_get_allowed_request_hosts",
        "the check of hosts needs it",
        ("allowed_literal_origins",),
    ),
    Name(
        "google.adk.version",
        "__version__",
        "plain requests are answered in front for versions that were compared",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "RunAgentRequest",
        "runs that outlive their connection are asked for with it",
        ("appName", "userId", "sessionId", "newMessage", "streaming", "stateDelta"),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "ApiServer",
        "`mount(app, runners=…)` has it run agents without ADK's application",
        (
            *("agent_loader", "session_service", "memory_service", "artifact_service"),
            *("credential_service", "eval_sets_manager", "eval_set_results_manager", "agents_dir"),
        ),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "ApiServer.get_runner_async",
        "`mount(app, runners=…)` overrides it to give the runners it was given",
        ("app_name",),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "ApiServer.get_fast_api_app",
        "`mount(app, runners=…)` takes the endpoint of `/run_sse` from its application",
        (),
    ),
    Name(
        f"{ADK_CLI}.fast_api",
        "get_fast_api_app",
        "`lapse serve` serves its application",
        (
            *("agents_dir", "agent_loader", "session_service_uri", "artifact_service_uri"),
            *("allow_origins", "web", "bind_host", "host", "port"),
        ),
    ),
    Name(
        f"{ADK_CLI}.service_registry",
        "get_service_registry",
        "`lapse serve` hands ADK its session service through it",
        (),
    ),
    Name(
        f"{ADK_CLI}.service_registry",
        "ServiceRegistry.register_session_service",
        "`lapse serve` hands ADK its session service with it",
        ("scheme", "factory"),
    ),
    Name(
        f"{ADK_CLI}.service_registry",
        "ServiceRegistry.register_artifact_service",
        "`lapse serve` learns with it which artifact service ADK makes",
        ("scheme", "factory"),
    ),
    Name(
        f"{ADK_CLI}.utils.service_factory",
        "create_artifact_service_from_options",
        "`lapse serve` makes the artifact service with it that ADK would make",
        ("base_dir", "artifact_service_uri", "strict_uri", "use_local_storage"),
    ),
    Name(
        f"{ADK_CLI}.utils.agent_loader",
        "AgentLoader.load_agent",
        "`lapse serve` turns its ValueErrors into answers that name no folder",
        ("agent_name",),
    ),
    Name(
        f"{ADK_CLI}.utils._nested_agent_loader",
        "NestedAgentLoader.load_agent",
        "`lapse serve --web` turns its ValueErrors into answers that name no folder",
        ("agent_name",),
    ),
    Name(
        f"{ADK_CLI}.utils.base_agent_loader",
        "BaseAgentLoader._allow_special_agents",
        "ADK's own agents are served where it is set, and to few",
    ),
    Name(
        f"{ADK_CLI}.utils.agent_loader",
        "SPECIAL_AGENTS_DIR",
        "the names of ADK's own agents are read off this folder",
    ),
    Name(
        f"{ADK_CLI}.utils.agent_loader",
        "AgentLoader.list_agents",
        "the apps that it lists are served, and no others",
        (),
    ),
    Name(
        f"{ADK_CLI}.utils._nested_agent_loader",
        "NestedAgentLoader.list_agents",
        "with `--web` the apps that it lists are served, and no others",
        (),
    ),
    Name(
        "google.adk.artifacts.artifact_util",
        "get_artifact_uri",
        "clients are told of an artifact by it, and not by the file of it",
        ("app_name", "user_id", "filename", "version", "session_id"),
    ),
    Name(
        "fastapi.dependencies.models",
        "Dependant",
        "faults of an endpoint are told from bodies that cannot be read by its `call`",
        ("call",),
    ),
    *(
        Name(
            UVICORN,
            f"HttpToolsProtocol.{method}",
            "requests are bounded before there is one by overriding it (limits/protocol.py)",
            parameters,
        )
        for method, parameters in {
            "connection_made": ("transport",),
            "connection_lost": ("exc",),
            "data_received": ("data",),
            "on_message_begin": (),
            "on_header": ("name", "value"),
            "on_headers_complete": (),
            "on_body": ("body",),
            "on_message_complete": (),
            "on_response_complete": (),
            "handle_websocket_upgrade": (),
            "send_400_response": ("msg",),
            "pause_writing": (),
            "resume_writing": (),
        }.items()
    ),
    *(
        Name(
            "uvicorn.protocols.websockets.auto",
            f"AutoWebSocketsProtocol.{method}",
            "unread bytes of WebSockets are watched by overriding it (limits/protocol.py)",
            parameters,
        )
        for method, parameters in {
            "pause_writing": (),
            "resume_writing": (),
            "connection_lost": ("exc",),
        }.items()
    ),
    *(
        Name(
            "uvicorn",
            f"Server.{method}",
            "`lapse serve` says where it listens, and lets runs finish, by overriding it",
            ("sockets",),
        )
        for method in ("startup", "shutdown")
    ),
]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_every_private_name_that_lapse_uses_still_exists(name):
    """Broken on purpose: each row fails once its name is deleted, or has another parameter."""
    try:
        found = import_module(name.module)
        for part in name.path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        pytest.fail(f"{name} is gone; {name.use}")
    if name.parameters is not None:
        taken = inspect.signature(found).parameters
        missing = [parameter for parameter in name.parameters if parameter not in taken]
        assert not missing, f"{name} takes no {missing} any more; {name.use}"


def test_sessions_still_have_the_private_attribute_for_the_revision():
    """Lapse stores the revision there; pydantic refuses an unknown attribute."""
    session = Session(app_name="a", user_id="u", id="s")
    assert private.marker_of(session) is None
    private.set_marker(session, "7")
    assert private.marker_of(session) == private.marker_of(session.model_copy()) == "7"
    assert "7" not in session.model_dump_json()


def test_sent_events_still_have_neither_secrets_nor_internal_fields_of_adk():
    credential = {"authConfig": {"rawAuthCredential": {"authType": "apiKey", "apiKey": "secret"}}}
    call = types.FunctionCall(name="adk_request_credential", args=credential)
    event = Event(
        author="model",
        content=types.Content(parts=[types.Part(function_call=call)]),
        custom_metadata={"__adk_internal_mark": "own", "note": "kept"},
    )
    fields = private.public_fields(event)
    assert fields["customMetadata"] == {"note": "kept"}
    assert "adk_request_credential" in str(fields)
    assert "secret" not in str(fields)


@pytest.mark.parametrize("root_path", ["", "/", "/a", "/a/", "/a/b", "a"])
@pytest.mark.parametrize("path", ["", "/", "*", "/a", "/a/", "/ab", "/a/b", "/a/b/c", "/c/a/b"])
def test_the_gate_uses_the_path_that_routes_are_matched_with(root_path, path):
    """Broken on purpose: where `/ab` counts as below `/a`, the gate opens what it should not."""
    from starlette._utils import get_route_path

    scope = {"path": path, "root_path": root_path}
    assert route_path(scope) == get_route_path(scope)
    assert route_path({"path": path}) == path


def test_adk_still_uses_the_loaders_that_lapse_wraps(tmp_path, monkeypatch):
    """Lapse's loader must be a subclass of the loader that ADK chooses."""
    from google.adk.cli import fast_api

    class ChosenError(Exception):
        pass

    for web, expected in ((False, "AgentLoader"), (True, "NestedAgentLoader")):

        def chosen(folder, expected=expected):
            raise ChosenError(expected)

        loader = private.agent_loader(tmp_path, web=web)
        assert expected in {base.__name__ for base in type(loader).__bases__}
        monkeypatch.setattr(fast_api, expected, chosen)
        with pytest.raises(ChosenError, match=f"^{expected}$"):
            fast_api.get_fast_api_app(agents_dir=str(tmp_path), web=web)


@pytest.mark.parametrize("web", [False, True])
def test_the_server_behind_adks_routes_is_still_found(tmp_path, web):
    """Its loader tells which apps an application with ADK's routes serves."""
    from google.adk.cli.fast_api import get_fast_api_app

    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "agent.py").write_text("")
    for host, has_own in (("127.0.0.1", web), ("0.0.0.0", False)):
        options = {"session_service_uri": "memory://", "bind_host": host}
        app = get_fast_api_app(agents_dir=str(tmp_path), web=web, **options)
        server = private.server_of(app)
        assert server.agent_loader.list_agents() == ["shop"]
        assert server.default_app_name is None
        own = private.own_agents(server.agent_loader)
        assert ("__adk_agent_builder_assistant" in own) == has_own
        assert all(name.startswith("__") for name in own)
    agent = get_fast_api_app(agents_dir=str(tmp_path / "shop"), web=web, **options)
    assert private.server_of(agent).default_app_name == "shop"


def test_an_application_without_adks_routes_has_no_server_of_adks():
    own = FastAPI()
    assert private.server_of(own) is None

    @own.get("/list-apps")
    async def list_apps() -> list[str]:
        return []

    assert private.server_of(own) is None


def test_uvicorns_protocol_still_has_the_attributes_that_the_bounded_one_reads():
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
    from uvicorn.server import ServerState

    config = uvicorn.Config(lambda: None, log_config=None)
    config.load()
    protocol = HttpToolsProtocol(config, ServerState(), {}, _loop=object())
    protocol.on_message_begin()
    for attribute in (
        "connections",
        "transport",
        "headers",
        "url",
        "cycle",
        "loop",
        "flow",
        "pipeline",
    ):
        assert hasattr(protocol, attribute), f"limits/protocol.py reads {attribute}"
    read = inspect.getsource(RequestResponseCycle.__init__)
    for attribute in ("disconnected", "response_started", "response_complete", "message_event"):
        assert f"self.{attribute}" in read, f"limits/protocol.py reads {attribute} of a cycle"


def test_the_artifact_sweepers_protocol_still_fits_adks_artifact_services():
    """artifacts/ must not import adk/: it declares a protocol, compared here with ADK."""
    from google.adk.artifacts.base_artifact_service import BaseArtifactService

    for name in ("list_artifact_keys", "list_artifact_versions", "delete_artifact"):
        asked = inspect.signature(getattr(ArtifactService, name)).parameters
        taken = inspect.signature(getattr(BaseArtifactService, name)).parameters
        assert list(asked) == [one for one in taken if one in asked], name


# Who may use such names.

MAY_IMPORT_ADK = (
    "adk/",
    "web/server.py",
    "demo/agents/concierge/agent.py",
    "demo/local_llm/concierge/",
)
TREES = {
    path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.rglob("*.py"))
}
ATTRIBUTES = {
    *(name.path.rpartition(".")[2] for name in NAMES if "._" in name.path),
    "_storage_update_marker",
    "_validate_agent_name",
    "_allow_special_agents",
}


def imports(tree):
    """Yield the dotted name of each thing that a module imports of another package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(dotted):
    parts = dotted.split(".")
    # OpenTelemetry marks what it documents, but may still change, with an underscore.
    return parts[0] not in {"lapse", "__future__", "opentelemetry"} and any(
        part.startswith("_") for part in parts
    )


def test_no_other_module_uses_a_private_name_of_another_package():
    """Broken on purpose: with starlette's `get_route_path` in the gate again, it names the gate."""
    taken = {}
    for file, tree in TREES.items():
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names = {dotted for dotted in imports(tree) if is_private(dotted)}
        taken[file] = names | attributes & ATTRIBUTES
    here = taken.pop("adk/private.py")
    known = {str(name) for name in NAMES}
    assert here <= ATTRIBUTES | known | {name.rpartition(".")[0] for name in known}
    assert "google.adk.events._internal_metadata.public_event" in here
    assert {file: names for file, names in taken.items() if names} == {}


def test_no_module_reads_function_names_off_the_stack():
    """Except where ADK's look-ups before a run are told from other reads: ADK says it nowhere."""
    read = {"f_code", "co_name", "tb_frame"}
    for file, tree in TREES.items():
        if file == "adk/private.py":
            continue
        found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & read
        assert not found, file


def test_only_the_adk_folder_the_server_and_the_demos_agents_import_adk():
    """Broken on purpose: with ADK's Event imported for a type in runs/run.py, it names the file."""
    others = {file: tree for file, tree in TREES.items() if not file.startswith(MAY_IMPORT_ADK)}
    for file, tree in others.items():
        assert [name for name in imports(tree) if f"{name}.".startswith("google.adk.")] == [], file
    assert others.keys() >= {"runs/run.py", "artifacts/sweeper.py", "web/errors.py"}


def test_importing_the_module_of_private_names_imports_no_adk():
    program = (
        "import sys, lapse.adk.private\n"
        "sys.exit(any(name.startswith(('google', 'fastapi')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
