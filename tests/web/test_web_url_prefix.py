"""`lapse serve --url-prefix`: behind a proxy that takes the prefix off, or leaves it."""

from __future__ import annotations

import re

import httpx
import pytest

from serving import AGENTS, eventually, serving

pytestmark = pytest.mark.long

TOKEN = "t" * 24


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefixed")
    arguments = ("--url_prefix", "/adk", "--web", "--admin-port", "0")
    with serving(folder, str(AGENTS), *arguments, LAPSE_ADMIN_TOKEN=TOKEN) as running:
        yield running


@pytest.mark.parametrize("kept", ["", "/adk"])
def test_a_session_lives_expires_and_comes_back_below_the_prefix(prefixed, kept):
    client, path = prefixed.client, kept + prefixed.path(f"s{len(kept)}")
    created = client.post(path, json={})
    assert created.status_code == 200, created.text
    ttl = {"ttlMinutes": 0.01}
    assert client.patch(f"{path}/lifecycle", json=ttl).status_code == 200
    eventually(lambda: client.get(f"{path}/lifecycle").json()["status"] == "expired")
    body = prefixed.run_body(created.json()["id"], "hello")
    ran = client.post(f"{kept}/run", json=body)
    assert "heard: hello" in ran.text, ran.text
    assert client.get(f"{path}/lifecycle").json()["status"] == "used"
    begun = client.post(f"{path}/run", json={"message": "again"})
    assert begun.status_code == 200, begun.text
    told = begun.json()
    assert told["stream"].startswith("/adk/apps/parrot/")
    assert "heard: again" in client.get(told["stream"].removeprefix("/adk")).text


@pytest.mark.parametrize("kept", ["", "/adk"])
def test_the_developer_ui_and_the_browsers_module_are_found_below_the_prefix(prefixed, kept):
    client = prefixed.client
    assert client.get(f"{kept}/").headers["location"] == "/adk/dev-ui/"
    config = client.get(f"{kept}/dev-ui/assets/config/runtime-config.json").json()
    assert config["backendUrl"] == "/adk"
    assert client.get(f"{kept}/lapse/client.js").status_code == 200


@pytest.mark.parametrize("kept", ["", "/adk"])
def test_the_operators_port_serves_the_pages_below_the_prefix_and_nothing_else(prefixed, kept):
    """Seen to fail with `/adk` where the layers around the application do not know the prefix."""
    address = re.search(r"Operators' pages: (http://\S+)/lapse/", prefixed.log)[1]
    pages = httpx.get(f"{address}{kept}/lapse/", trust_env=False)
    assert pages.headers["location"].startswith("/adk/lapse/login")
    assert httpx.get(f"{address}{kept}/list-apps", trust_env=False).status_code == 404
    assert prefixed.client.get(f"{kept}/lapse/").status_code == 404
