"""Every example, run as it stands, over a real socket."""

import asyncio
import importlib.util
import json
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from served import Served
from serving import environment, eventually

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[3] / "examples"
ADK = str(Path(sys.executable).with_name("adk"))


@contextmanager
def example(name):
    """Serve an example's application."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Served(module.app) as server:
        server.service = module.service
        yield server


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def events(answer):
    """Return the data of server-sent events."""
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def expire(client, chat):
    """Let a session expire now."""
    path = f"/apps/shop/users/guest/sessions/{chat}/lifecycle"
    client.patch(path, json={"ttlMinutes": 0.0001}).raise_for_status()
    eventually(lambda: client.get(path).json()["status"] == "expired")
    with closing(sqlite3.connect("chats.db")) as connection, connection:
        connection.execute("UPDATE lapse_lobby SET ttl = 30 * 60 * 1000000")
    return path


def test_the_example_own_app_runs():
    with example("own_app") as server:
        client = server.client
        assert client.get("/readyz").json() == {"status": "ready"}
        chat = client.post("/chats").json()
        path = expire(client, chat)
        answer = client.post(f"/chats/{chat}", json="A table for 4, please")
        assert "reservation 1 for 4 guests" in answer.json()
        assert client.get(path).json()["status"] == "used"
        with client.stream("GET", f"{path}/events") as stream:
            assert "event: lifecycle" in stream.iter_lines()


@contextmanager
def adk_server(command, log):
    """Run one of ADK's own servers on the example; give a client of it."""
    uri = "lapse:sqlite:///chats.db"
    arguments = [command, "--port", "0", "--session_service_uri", uri, str(EXAMPLES / "adk_web")]
    with log.open("w") as output:
        server = subprocess.Popen(
            [ADK, *arguments], env=environment(), stdout=output, stderr=output
        )
    try:

        def url():
            assert server.poll() is None, log.read_text()
            *_, found = log.read_text().rpartition("running on http://")
            return found.partition(" ")[0] if "running on" in log.read_text() else None

        with httpx.Client(base_url=f"http://{eventually(url, within=120)}", timeout=30) as client:
            yield client
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.parametrize("command", ["api_server", pytest.param("web", marks=pytest.mark.long)])
def test_the_example_adk_web_runs(command, tmp_path):
    """Seen to fail with an empty LOOKS_BEFORE_A_RUN: 404 for both expired sessions."""
    path = "/apps/greeter/users/ann/sessions"
    with adk_server(command, tmp_path / "adk.log") as client:

        def opened(name, **options):
            body = {"sessionId": name, "state": {"reservations": 6}, "options": options}
            assert client.post(path, json=body).status_code == 200

        def say(name, route="/run"):
            message = {"role": "user", "parts": [{"text": "a table for 2"}]}
            body = {"appName": "greeter", "userId": "ann", "sessionId": name, "newMessage": message}
            return client.post(route, json=body)

        opened("living")
        for name in ("gone", "away"):
            opened(name, ttl_minutes=0.001)
            eventually(lambda name=name: client.get(f"{path}/{name}").status_code == 404)
        with closing(sqlite3.connect("chats.db")) as connection, connection:
            connection.execute("UPDATE lapse_lobby SET ttl = 30 * 60 * 1000000")
        for name, route in (("living", "/run"), ("gone", "/run"), ("away", "/run_sse")):
            answer = say(name, route)
            assert answer.status_code == 200, (name, answer.text)
            assert "reservation 7 for 2" in answer.text
        assert say("never was").status_code == 404
    with closing(sqlite3.connect("chats.db")) as connection:
        found = connection.execute("SELECT session_id, status, resurrections FROM lapse_lobby")
        assert set(found) == {("living", "used", 0), ("gone", "used", 1), ("away", "used", 1)}


def test_the_example_adk_web_runs_an_agent_alone():
    """Seen to fail with the file beside the agents only: ADK knows no such URI."""
    agent = str(EXAMPLES / "adk_web" / "greeter")
    command = [
        ADK,
        "run",
        "--session_service_uri",
        "lapse:sqlite:///chats.db",
        agent,
        "a table for 2",
    ]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "reservation 1 for 2" in done.stdout
    with closing(sqlite3.connect("chats.db")) as connection:
        assert list(connection.execute("SELECT status FROM lapse_lobby")) == [("used",)]


def test_the_example_ag_ui_runs():
    # Seen to fail without the example's `revive`: the answer is there, the state is not.
    with example("ag_ui") as server:
        client = server.client

        def say(chat, text):
            run = {
                "threadId": chat,
                "runId": str(uuid.uuid4()),
                "state": {},
                "messages": [{"id": str(uuid.uuid4()), "role": "user", "content": text}],
                "tools": [],
                "context": [],
                "forwardedProps": {},
            }
            answer = client.post("/ag-ui", json=run, headers={"Accept": "text/event-stream"})
            assert answer.status_code == 200, answer.text
            found = events(answer)
            assert (found[0]["type"], found[-1]["type"]) == ("RUN_STARTED", "RUN_FINISHED")
            return "".join(each.get("delta", "") for each in found if "CONTENT" in each["type"])

        chat = str(uuid.uuid4())
        assert "reservation 1 for 4" in say(chat, "A table for 4, please")
        assert "reservation 2 for 3" in say(chat, "And a table for 3, please")

        # A page had opened a session, and its reader came back after lunch.
        opened = server.service.create_session(
            app_name="shop", user_id="guest", session_id="opened", state={"reservations": 6}
        )
        asyncio.run_coroutine_threadsafe(opened, server.loop).result(30)
        path = expire(client, "opened")
        assert "reservation 7 for 5" in say("opened", "A table for 5, please")
        assert client.get(path).json()["resurrections"] == 1
