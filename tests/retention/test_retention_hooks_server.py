"""A real server and a real sweeper await the hooks that a setting names."""

import os
import subprocess
from contextlib import contextmanager

import pytest
from test_retention_server import EVENTS, confirmed, used

from serving import AGENTS, LAPSE, environment, eventually, serving

pytestmark = pytest.mark.long

WORDS = "hello"
HOOKS = """
from pathlib import Path
from lapse import RetentionHooks

HERE = Path(__file__).parent


async def before_purge(session):
    with (HERE / "called").open("a") as file:
        file.write(f"{session.id} {len(session.events)}\\n")
    if (HERE / "fail").exists():
        raise ValueError(session.events[0].content.parts[0].text)


HOOKS = RetentionHooks(before_purge=before_purge)
"""


def hooked(folder):
    """Write hooks and a confirmed policy that purges at once; return a server's settings."""
    (folder / "hooks_of_mine.py").write_text(HOOKS)
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    hooks = {"LAPSE_RETENTION_HOOKS": "hooks_of_mine:HOOKS", "PYTHONPATH": path}
    return confirmed(folder, "1s") | hooks


def called(folder):
    path = folder / "called"
    return path.read_text().splitlines() if path.exists() else []


def is_gone(server, session_id):
    return server.client.get(server.path(session_id) + "/lifecycle").status_code == 404


@contextmanager
def sweeping(folder, **settings):
    """A `lapse sweep --watch` of its own."""
    arguments = [LAPSE, "sweep", "--watch", "--store", f"sqlite:///{folder / 'lapse.db'}"]
    with subprocess.Popen(arguments, cwd=folder, env=environment(**settings)) as sweeper:
        yield
        sweeper.terminate()


@pytest.mark.parametrize("sweeper", ["the server", "a sweeper"])
def test_a_session_is_purged_after_its_hook_whoever_sweeps(tmp_path, sweeper):
    """Seen to fail with a sweeper that does not read the setting."""
    with serving(tmp_path, str(AGENTS)) as server:
        session_id = used(server)
    settings = hooked(tmp_path)
    if sweeper == "the server":
        with serving(tmp_path, str(AGENTS), fresh=True, **settings) as server:
            eventually(lambda: is_gone(server, session_id))
            sample = 'lapse_retention_hooks_total{hook="before_purge",outcome="done"}'
            assert server.metric(sample) == 1
    else:
        with (
            serving(tmp_path, str(AGENTS), LAPSE_SWEEPER="off") as server,
            sweeping(tmp_path, **settings),
        ):
            eventually(lambda: is_gone(server, session_id))
    assert called(tmp_path) == [f"{session_id} {EVENTS}"]


def test_while_its_hook_fails_a_session_stays_and_can_be_restored(tmp_path):
    (tmp_path / "fail").touch()
    with serving(tmp_path, str(AGENTS)) as server:
        session_id = used(server)
    with serving(tmp_path, str(AGENTS), fresh=True, **hooked(tmp_path)) as server:
        eventually(lambda: called(tmp_path))
        sample = 'lapse_retention_hooks_total{hook="before_purge",outcome="failed"}'
        eventually(lambda: server.metric(sample) == 1)
        assert server.lifecycle(session_id)["status"] == "archived"
        assert server.run(session_id, "again").status_code == 200
        assert session_id[:8] in server.log
        assert session_id not in server.log
        assert "ValueError" in server.log
        assert WORDS not in server.log
