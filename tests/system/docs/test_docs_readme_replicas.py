"""The README's two servers and a sweeper on one PostgreSQL, run as printed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from postgres import blank

pytestmark = pytest.mark.long

README = (Path(__file__).parents[3] / "README.md").read_text("utf-8")


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def wait_for(look: Callable[[], Any], seconds: float = 40) -> Any:
    """Return what `look` finds, once that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail("it did not come")


def test_two_servers_and_a_sweeper_share_one_database(tmp_path: Path):
    (script,) = re.findall(r"<!-- replicas -->\n```sh\n(.*?)```", README, re.DOTALL)
    one, other = free_port(), free_port()
    log = tmp_path / "log"
    with blank() as url, log.open("wb") as written:
        script = (
            script.replace(".venv/bin/pip install --quiet '.[postgres]'", "")
            .replace(".venv/bin/", f"{Path(sys.executable).parent}/")
            .replace("postgresql://lapse:secret@localhost/lapse", f"'{url}'")
            .replace("8001", one)
            .replace("8002", other)
        )
        replicas = subprocess.Popen(
            ["bash", "-eu", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "SESSION_CLEANUP_TTL_MINUTES": "0.05"},
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
        try:
            tell_the_story(f"http://127.0.0.1:{one}", f"http://127.0.0.1:{other}")
        except BaseException as error:
            error.add_note(log.read_text())
            raise
        finally:
            os.killpg(replicas.pid, signal.SIGTERM)
            replicas.wait(20)
    assert "session expired" in log.read_text()


def tell_the_story(one: str, other: str) -> None:
    for url in (one, other):
        wait_for(lambda url=url: httpx.get(f"{url}/readyz").is_success)
    path = "/apps/concierge/users/ada/sessions"
    session = httpx.post(one + path, json={"sessionId": "tea"}).json()
    life = f"{path}/{session['id']}/lifecycle"
    assert httpx.post(f"{other}{life}/extend").json()["status"] == "waiting"

    def swept() -> bool:
        record = httpx.get(other + life).json()
        # Until a sweep has met it, an overdue session says that it expired at its deadline.
        return record["status"] == "expired" and record["expiredAt"] > record["expiresAt"]

    wait_for(swept)
    body = {
        "appName": "concierge",
        "userId": "ada",
        "sessionId": "tea",
        "newMessage": {"role": "user", "parts": [{"text": "I am back"}]},
    }
    assert httpx.post(f"{other}/run", json=body, timeout=30).is_success
    record = httpx.get(one + life).json()
    assert (record["status"], record["resurrections"]) == ("used", 1)
