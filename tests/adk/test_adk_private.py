"""The private names of other packages that Lapse uses, and what each one is for.

When a new version of ADK, FastAPI or uvicorn moves one, its sentence fails here; `adk/private/`
is then the place to mend.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from fastapi import FastAPI
from google.adk.events.event import Event
from google.adk.sessions.session import Session
from google.genai import types
from private_names import NAMES

import lapse
from adk_versions import is_before, since_adk
from lapse.adk.private import loaders, servers, sessions, wire
from lapse.core.artifacts import CopyingService
from lapse.core.request import route_path

SOURCE = Path(lapse.__file__).parent


@pytest.mark.parametrize("name", [name for name in NAMES if name.is_used], ids=str)
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
    assert sessions.marker_of(session) is None
    sessions.set_marker(session, "7")
    assert sessions.marker_of(session) == sessions.marker_of(session.model_copy()) == "7"
    assert "7" not in session.model_dump_json()


@since_adk("2.12", "ADK sends them")
def test_sent_events_still_have_neither_secrets_nor_internal_fields_of_adk():
    credential = {"authConfig": {"rawAuthCredential": {"authType": "apiKey", "apiKey": "secret"}}}
    call = types.FunctionCall(name="adk_request_credential", args=credential)
    event = Event(
        author="model",
        content=types.Content(parts=[types.Part(function_call=call)]),
        custom_metadata={"__adk_internal_mark": "own", "note": "kept"},
    )
    fields = wire.public_fields(event)
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


@since_adk("2.4", "there is one loader")
def test_adk_still_uses_the_loaders_that_lapse_wraps(tmp_path, monkeypatch):
    """Lapse's loader must be a subclass of the loader that ADK chooses."""
    from google.adk.cli import fast_api

    class ChosenError(Exception):
        pass

    for web, expected in ((False, "AgentLoader"), (True, "NestedAgentLoader")):

        def chosen(folder, expected=expected):
            raise ChosenError(expected)

        loader = loaders.agent_loader(tmp_path, web=web)
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
    knows_hosts = "bind_host" in servers.server_arguments()
    on_any_host = web and is_before("2.12")
    for host, has_own in (("127.0.0.1", web), ("0.0.0.0", on_any_host)):
        options = {"session_service_uri": "memory://"}
        options |= {"bind_host": host} if knows_hosts else {}
        app = get_fast_api_app(agents_dir=str(tmp_path), web=web, **options)
        server = servers.server_of(app)
        assert server.agent_loader.list_agents() == ["shop"]
        assert servers.default_app_of(server) is None
        own = loaders.own_agents(server.agent_loader)
        may_have = hasattr(server.agent_loader, "_allow_special_agents")
        assert ("__adk_agent_builder_assistant" in own) == (has_own and may_have)
        assert all(name.startswith("__") for name in own)
    if loaders.serves_one_agent():
        agent = get_fast_api_app(agents_dir=str(tmp_path / "shop"), web=web, **options)
        assert servers.default_app_of(servers.server_of(agent)) == "shop"


def test_an_application_without_adks_routes_has_no_server_of_adks():
    own = FastAPI()
    assert servers.server_of(own) is None

    @own.get("/list-apps")
    async def list_apps() -> list[str]:
        return []

    assert servers.server_of(own) is None


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
        "scope",
        "parser",
        "loop",
        "flow",
        "pipeline",
        "client",
        "_start_asgi_task",
        "_unset_keepalive_if_required",
    ):
        assert hasattr(protocol, attribute), f"limits/protocol.py reads {attribute}"
    read = inspect.getsource(RequestResponseCycle.__init__)
    for attribute in ("disconnected", "response_started", "response_complete", "message_event"):
        assert f"self.{attribute}" in read, f"limits/protocol.py reads {attribute} of a cycle"


def test_the_protocols_of_artifacts_still_fit_adks_artifact_services():
    """core/ must not import adk/: it declares protocols, compared here with ADK."""
    from google.adk.artifacts.base_artifact_service import BaseArtifactService

    names = [
        name for name in dir(CopyingService) if name.endswith(("artifact", "keys", "versions"))
    ]
    assert len(names) == 5
    for name in names:
        asked = inspect.signature(getattr(CopyingService, name)).parameters
        taken = inspect.signature(getattr(BaseArtifactService, name)).parameters
        assert list(asked) == [one for one in taken if one in asked], name


# Who may use such names.

PRIVATE = "adk/private/"
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
    here = set().union(*(taken.pop(file) for file in list(taken) if file.startswith(PRIVATE)))
    known = {str(name) for name in NAMES}
    assert here <= ATTRIBUTES | known | {name.rpartition(".")[0] for name in known}
    assert "google.adk.events._internal_metadata.public_event" in here
    assert {file: names for file, names in taken.items() if names} == {}


def test_no_module_reads_function_names_off_the_stack():
    """Except where ADK's look-ups before a run are told from other reads: ADK says it nowhere."""
    read = {"f_code", "co_name", "tb_frame"}
    for file, tree in TREES.items():
        if file.startswith(PRIVATE):
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
    names = {file.stem for file in (SOURCE / PRIVATE).glob("*.py")} - {"__init__", "sessions"}
    assert names >= {"servers", "versions", "wire"}
    program = (
        f"import sys\nfrom lapse.adk.private import {', '.join(sorted(names))}\n"
        "sys.exit(any(name.startswith(('google.adk', 'fastapi')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
