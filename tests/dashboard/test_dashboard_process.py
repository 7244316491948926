"""`lapse serve` with the operators' pages on a port of their own."""

import re
import socket

import httpx
import pytest

from lapse.core.errors import SettingsError
from lapse.settings import load_settings
from serving import Server

pytestmark = pytest.mark.long

TOKEN = "operators-token-0123456789"


def refuses_connections(url):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def test_the_dashboard_answers_only_on_its_own_port_and_both_servers_end_together(tmp_path):
    server = Server(tmp_path, "--admin-port", "0", LAPSE_ADMIN_TOKEN=TOKEN)
    try:
        own = re.search(r"Operators' pages: (http://127\.0\.0\.1:\d+)/lapse/", server.log)[1]
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/lapse/", "/lapse/login", "/lapse/api/stats", "/lapse/static/x/live.js"):
            answer = server.client.get(path, headers=bearer)
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), path
        assert server.client.get("/lapse/client.js").status_code == 200
        with httpx.Client(base_url=own, trust_env=False) as operators:
            assert operators.get("/lapse/api/stats", headers=bearer).status_code == 200
            assert operators.get("/lapse/", follow_redirects=True).status_code == 200
            for path in ("/", "/livez", "/list-apps", "/lapsed", "/docs"):
                assert operators.get(path).status_code == 404, path
            assert server.stop() in {0, -15}
        assert refuses_connections(own)
        assert refuses_connections(server.url)
        assert TOKEN not in server.log
        assert "Traceback" not in server.log
    finally:
        server.kill()


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_a_weak_token_stops_the_start_and_is_not_repeated(empty_folder):
    empty_folder.setenv("LAPSE_ADMIN_TOKEN", "hunter2")
    empty_folder.setenv("LAPSE_ADMIN_PORT", "70000")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    assert [re.sub("[:=].*", "", problem) for problem in caught.value.problems] == [
        "LAPSE_ADMIN_TOKEN",
        "LAPSE_ADMIN_PORT",
    ]


def test_the_token_of_operators_is_in_no_repr(empty_folder):
    empty_folder.setenv("LAPSE_ADMIN_TOKEN", TOKEN)
    settings = load_settings(store_url="postgresql://lapse:secret@db/lapse")
    assert settings.operators.token.get_secret_value() == TOKEN
    assert TOKEN not in repr(settings) + repr(settings.operators)
    assert settings.operators.store == "postgresql://lapse@db/lapse"
