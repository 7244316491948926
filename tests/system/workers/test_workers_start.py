"""How `lapse serve --workers` starts, refuses to start and ends, with real workers."""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from run_reading import AGENTS, begin, new_session_id
from serving import eventually, lapse, serving
from worker_clients import Clients, pid_of

pytestmark = pytest.mark.long

WRONG = {
    "settings": ((), {"LAPSE_SWEEPER": "maybe"}),
    "a misspelt setting": ((), {"LAPSE_WORKER": "2"}),
    "a store that is none": (("--store", "sqlite:///not-a-database.db"), {}),
    "a plugin that there is not": (("--extra-plugins", "nowhere.Plugin"), {}),
    "authentication without a key": ((), {"LAPSE_AUTH": "jwt"}),
}


def refusal(folder, workers, *arguments, **settings):
    ended = lapse(
        folder, "serve", "--port", "0", "--workers", workers, *arguments, fresh=True, **settings
    )
    # Lines of the log begin with their time.
    told = [line for line in ended.stderr.splitlines() if not re.match(r"\d{4}-", line)]
    return ended.returncode, told, ended.stdout


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_once_and_as_by_one_process(wrong, tmp_path):
    arguments, settings = WRONG[wrong]
    (tmp_path / "not-a-database.db").write_text("a diary" * 1000)
    alone = refusal(tmp_path, "1", *arguments, **settings)
    assert alone[0] == 1
    assert alone[1][0].startswith("lapse: ")
    assert refusal(tmp_path, "2", *arguments, **settings) == alone


def test_a_port_that_is_taken_is_told_as_by_one_process(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = {
            (ended.returncode, ended.stderr)
            for number in ("1", "2")
            for ended in [lapse(tmp_path, "serve", "--port", port, "--workers", number, fresh=True)]
        }
    ((status, sentence),) = {
        (status, re.sub(r".*each of 2 workers keeps.*\n", "", text)) for status, text in told
    }
    assert status == 1
    assert sentence.startswith(f"lapse: cannot listen on 127.0.0.1:{port}: ")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_although_streams_and_a_run_are_open(sent, tmp_path):
    """The status is the signal's, and streams end. No folder is left.

    Seen to fail with workers that end with KeyboardInterrupt's traceback.
    """
    folder = tmp_path / "tmp"
    folder.mkdir()
    settings = {
        "LAPSE_ACCESS_LOG": "true",
        "LAPSE_HEARTBEAT_SECONDS": "3600",
        "LAPSE_RUN_GRACE_SECONDS": "0",
        "TMPDIR": str(folder),
    }
    with (
        serving(tmp_path, str(AGENTS), "--workers", "2", fresh=True, **settings) as server,
        ExitStack() as stack,
    ):
        clients = Clients(server, stack)
        pids = [pid_of(server, number) for number in (1, 2)]
        assert len(list(folder.iterdir())) == 1
        session = new_session_id()
        path = f"/apps/walker/users/ada/sessions/{session}"
        assert clients.of(1).client.post(path, json={}).status_code == 200
        begin(clients.of(2), session, "never")
        streams = [
            stack.enter_context(clients.of(number).client.stream("GET", f"{path}/lifecycle/events"))
            for number in (1, 2)
        ]
        server.process.send_signal(sent)
        for stream in streams:
            stream.read()
        status = server.process.wait(timeout=30)
        assert status == (-sent if sent == signal.SIGTERM else 128 + sent)
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        assert list(folder.iterdir()) == []
        assert "Traceback" not in server.log


def test_while_workers_wait_for_a_run_nobody_can_connect(tmp_path):
    """Seen to fail with a parent that keeps the socket open: who connects then waits in vain."""
    settings = {"LAPSE_ACCESS_LOG": "true", "LAPSE_RUN_GRACE_SECONDS": "8"}
    with (
        serving(tmp_path, str(AGENTS), "--workers", "2", fresh=True, **settings) as server,
        ExitStack() as stack,
    ):
        client = Clients(server, stack).of(1).client
        session = new_session_id()
        path = f"/apps/walker/users/ada/sessions/{session}"
        assert client.post(path, json={}).status_code == 200
        begin(Clients(server, stack).of(1), session, "never")
        server.process.send_signal(signal.SIGTERM)

        def is_refused() -> bool:
            try:
                socket.create_connection((client.base_url.host, client.base_url.port)).close()
            except ConnectionRefusedError:
                return True
            return False

        eventually(is_refused)
        assert pid_of(server, 1) is not None
        assert server.process.wait(timeout=30) == -signal.SIGTERM


def test_the_operators_port_and_a_prefix_are_every_workers(tmp_path):
    settings = {"LAPSE_ACCESS_LOG": "true", "LAPSE_ADMIN_TOKEN": "t" * 32, "LAPSE_WORKERS": "2"}
    with (
        serving(
            tmp_path,
            str(AGENTS),
            *("--admin-port", "0", "--url-prefix", "/adk"),
            fresh=True,
            **settings,
        ) as server,
        ExitStack() as stack,
    ):
        assert "with 2 workers" in server.log
        pages = re.search(r"Operators' pages: (\S+)", server.log)[1]
        clients = Clients(server, stack)
        bearer = {"Authorization": "Bearer " + "t" * 32}
        for number in (1, 2):
            assert clients.of(number).client.get("/adk/list-apps").json() == ["walker"]
        answers = set()

        def both_answered() -> bool:
            answer = server.client.get(pages + "api/stats", headers=bearer)
            assert answer.status_code == 200
            answers.update(re.findall(r"path=/lapse/api/stats .*worker=(\d)", server.log))
            server.client.close()
            server.client.__init__(base_url=server.url, trust_env=False)
            return answers == {"1", "2"}

        eventually(both_answered)


def test_a_form_that_one_worker_made_is_taken_by_the_other(tmp_path):
    """No token signs it. Seen to fail with workers that have keys of their own."""
    settings = {
        "LAPSE_ACCESS_LOG": "true",
        "LAPSE_AUTH": "header",
        "LAPSE_AUTH_PROXIES": "127.0.0.1",
        "LAPSE_AUTH_ROLE_HEADER": "X-Role",
    }
    with (
        serving(tmp_path, str(AGENTS), "--workers", "2", fresh=True, **settings) as server,
        ExitStack() as stack,
    ):
        operator = {"X-Forwarded-User": "ann", "X-Role": "operator", "Origin": server.url}
        one, other = (Clients(server, stack).of(number, **operator) for number in (1, 2))
        page = one.client.get("/lapse/sweep").text
        token = re.search(r'name="form_token" value="([^"]+)"', page)[1]
        sent = {"form_token": token}
        assert other.client.post("/lapse/sweep", data=sent).status_code == 200
        assert other.client.post("/lapse/sweep", data={"form_token": "x"}).status_code == 403


def test_workers_end_when_their_parent_is_killed_and_leave_no_folder(tmp_path):
    """Seen to fail with a worker that leaves the folder to its parent."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    with serving(tmp_path, str(AGENTS), "--workers", "2", fresh=True, TMPDIR=str(folder)) as server:
        pids = [pid_of(server, number) for number in (1, 2)]
        os.kill(server.process.pid, signal.SIGKILL)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
        assert list(folder.iterdir()) == []
