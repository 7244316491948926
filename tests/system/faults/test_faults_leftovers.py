"""A run of the tests leaves nothing in the temporary folder, even if its process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from serving import eventually

pytestmark = pytest.mark.long

SUPPORT = Path(__file__).parents[2] / "support"
WITH_A_SERVER = """
import scratch, postgres, sys
postgres.server()
print("ready", flush=True)
sys.stdin.read()
"""
WITH_A_FOLDER = "import scratch; scratch.folder('other')"


@pytest.fixture
def place():
    """Return a temporary folder that PostgreSQL, which runs as another user, may enter."""
    with TemporaryDirectory() as here:
        Path(here).chmod(0o755)
        yield Path(here)


@pytest.fixture
def begin(place):
    """Return a function that begins a process whose temporary folder is the test's."""
    begun = []

    def begin(program):
        environment = dict(os.environ, TMPDIR=str(place), PYTHONPATH=os.pathsep.join(sys.path))
        environment.pop("XDG_RUNTIME_DIR", None)
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SUPPORT,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def ours(place):
    return sorted(place.glob("lapse-*"))


def test_a_test_process_leaves_nothing_even_if_it_is_killed(begin, place):
    """Seen to fail without the sweep of leftovers, and without the removal at the end."""
    killed, living = begin(WITH_A_SERVER), begin(WITH_A_SERVER)
    for process in (killed, living):
        assert process.stdout.readline() == "ready\n"
    servers = {int(one.read_text().split()[0]) for one in place.rglob("postmaster.pid")}
    assert len(servers) == 2
    killed.kill()
    killed.wait()
    assert len(ours(place)) == 4

    assert begin(WITH_A_FOLDER).wait(30) == 0
    assert len(ours(place)) == 2, "those of the living process stay, its server too"
    left = {int(one.read_text().split()[0]) for one in place.rglob("postmaster.pid")}
    assert len(left) == 1
    (ended,) = servers - left
    eventually(lambda: not Path(f"/proc/{ended}/cwd").exists() or gone(ended))

    living.communicate("")
    assert living.returncode == 0
    assert ours(place) == []


def gone(pid):
    return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
