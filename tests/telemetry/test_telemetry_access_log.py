"""The lines of requests, and how much of a session's id is in them."""

import json
import re
from urllib.parse import quote

import pytest
from fastapi.routing import iter_route_contexts

from lapse import Lapse
from lapse.web.middleware.access_log import shown_path
from serving import AGENTS, copied_agents, serving

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate Operation ID")  # of ADK's routes

ID = "canary-of-an-id-chosen-by-the-client"
IDS = ["canary/of-an-id/with-slashes", "caffè-di-caffè-più", "canary of an id"]


def parameters(path):
    return re.findall(r"{(\w+)(?::path)?}", path)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Return the path of each route of ADK's and of Lapse's."""
    agents = copied_agents(tmp_path_factory.mktemp("access") / "agents")
    app = Lapse("sqlite:///:memory:").app(agents, web=True, port=0)
    document = app.openapi()  # loads those of operators
    return {route.path or "" for route in iter_route_contexts(app.routes)} | document[
        "paths"
    ].keys()


def test_no_route_has_more_than_8_characters_of_an_id(paths):
    """Seen to fail with ADK's route of a session's traces."""
    named = [path for path in paths if any("session" in name for name in parameters(path))]
    assert "/dev/apps/{app_name}/debug/trace/session/{session_id}" in named
    assert "/apps/{app_name}/users/{user_id}/sessions/{session_id}/lifecycle" in named
    for path in named:
        filled = re.sub(r"{\w+(?::path)?}", "x", re.sub(r"{\w*session\w*}", ID, path))
        assert ID in filled
        told = shown_path({"path": filled, "raw_path": filled.encode()})
        assert ID[:8] in told
        assert ID[:9] not in told, path


def test_every_parameter_of_a_route_is_known(paths):
    """So that an id under another name is looked at, too: none of these is one of a session."""
    names = {name for path in paths for name in parameters(path)}
    assert names <= {
        *("app_name", "user_id", "session_id", "artifact_name", "version_id", "event_id"),
        *("eval_set_id", "eval_result_id", "eval_case_id", "test_name", "run_id"),
        *("release", "name", "path", "action"),
    }


@pytest.mark.parametrize("prefix", ["", "/below"])
def test_an_id_with_any_characters_is_shortened_in_the_line_of_a_request(tmp_path, prefix):
    """Seen to fail with the decoded path, in which a slash of the id ends it."""
    arguments = ["--url_prefix", prefix] if prefix else []
    wanted = {"LAPSE_ACCESS_LOG": "true", "LAPSE_LOG_FORMAT": "json"}
    with serving(tmp_path, str(AGENTS), *arguments, **wanted) as server:
        for session_id in IDS:
            encoded = quote(session_id, safe="")
            server.client.get(server.path(encoded))
            server.client.get(f"/dev/apps/parrot/debug/trace/session/{encoded}")
        server.stop()
        lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    told = [line["path"] for line in lines if "/session" in line.get("path", "")]
    assert len(told) == 2 * len(IDS), told
    for session_id in IDS:
        assert len([path for path in told if path.endswith(f"/{session_id[:8]}")]) == 2, told
