"""The parent of worker processes, with real ones that do little."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import working
from serving import eventually, lapse


class Program:
    """A running program of `working.py`."""

    def __init__(self, kind: str, folder: Path, number: int) -> None:
        self.folder = folder
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, working.__file__, kind, str(folder), str(number)],
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def serves(self) -> None:
        eventually(lambda: "all serve" in self.log)

    def pids(self, number: int) -> list[int]:
        """Return the processes that were the worker of a number, the latest last."""
        found = sorted(self.folder.glob(f"{number}-*"), key=lambda file: file.stat().st_ctime_ns)
        return [int(file.name.partition("-")[2]) for file in found]

    def signals(self, number: int) -> str:
        (pid,) = self.pids(number)
        return (self.folder / f"{number}-{pid}").read_text()


@pytest.fixture
def started(tmp_path):
    """Start a program that ends with the test."""
    made = []

    def start(kind: str, number: int = 2) -> Program:
        made.append(Program(kind, tmp_path, number))
        return made[-1]

    yield start
    for program in made:
        program.process.kill()
        program.process.wait()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("kind", "told", "status"),
    [
        ("refuses", "lapse: 1 problem in the settings", 1),
        ("fails", "ValueError: unforeseen", 1),
        ("is killed", r"lapse: worker \d ended before it served \(SIGKILL\)", 1),
        ("leaves", "None", 3),
    ],
)
def test_workers_that_cannot_start_end_all_with_what_one_of_them_tells(started, kind, told, status):
    """Seen to fail with a parent that starts them again."""
    program = started(kind, 3)
    assert program.process.wait(30) == status
    assert len(re.findall(told, program.log)) == 1, program.log
    assert "starts again" not in program.log


@pytest.mark.long
def test_a_worker_that_ends_soon_starts_again_after_growing_pauses(started):
    """Seen to fail with pauses that do not grow."""
    program = started("dies soon", 1)
    lines = r"worker 1 ended \(status 0\) and starts again(?: in (\S+) s)?"
    eventually(lambda: len(re.findall(lines, program.log)) >= 3)
    first, second, third, *_ = re.findall(lines, program.log)
    assert first == ""
    assert 0.4 <= float(second) <= 0.5
    assert 0.7 <= float(third) <= 1.0
    assert program.log.count("all serve") == 1


def test_a_killed_worker_is_replaced_and_the_others_stay(started):
    """Seen to fail with a parent that starts each worker once."""
    program = started("serves")
    program.serves()
    (killed,), (other,) = program.pids(1), program.pids(2)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: len(program.pids(1)) == 2)
    assert "worker 1 ended (SIGKILL) and starts again" in program.log
    assert "ended 1" in program.log
    assert lives(other)


@pytest.mark.long
def test_while_another_worker_serves_one_that_cannot_start_is_tried_again(started):
    """Seen to fail with a parent that ends whenever a worker ends before it serves."""
    program = started("serves")
    program.serves()
    (program.folder / "away").touch()
    os.kill(program.pids(1)[0], signal.SIGKILL)
    eventually(lambda: "is away" in program.log)
    assert re.search(r"worker 1 ended \(.*is away.*starts again", program.log)
    (program.folder / "away").unlink()
    eventually(lambda: len(program.pids(1)) >= 3)
    assert program.process.poll() is None


@pytest.mark.long
def test_if_no_worker_serves_any_more_one_that_cannot_start_ends_all(started):
    """Seen to fail with a parent that tries again whenever all have served once."""
    program = started("serves")
    program.serves()
    (program.folder / "away").touch()
    for number in (1, 2):
        os.kill(program.pids(number)[0], signal.SIGKILL)
    assert program.process.wait(30) == 1
    assert program.log.count("lapse: ") == 1, program.log


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_each_signal_is_passed_on_and_ends_the_parent_at_last(started, sent):
    """Seen to fail with a parent that passes only the first signal on."""
    program = started("needs two signals")
    program.serves()
    program.process.send_signal(sent)
    eventually(lambda: program.signals(1) == program.signals(2) == str(int(sent)))
    assert program.process.poll() is None
    program.process.send_signal(sent)
    assert program.process.wait(30) == -sent
    assert program.log.count("ended ") == 2
    assert program.log.count("all end") == 1


def test_workers_end_in_order_when_their_parent_is_killed(started):
    """Seen to fail without the thread that waits for the parent's end."""
    program = started("serves")
    program.serves()
    pids = program.pids(1) + program.pids(2)
    program.process.kill()
    eventually(lambda: not any(map(lives, pids)))
    assert {program.signals(number) for number in (1, 2)} == {str(int(signal.SIGTERM))}
    assert (program.folder / "orphaned").exists()


def test_a_terminals_signal_reaches_workers_by_their_parent_alone(started):
    """A process group gets Ctrl-C. Seen to fail with workers in the parent's group."""
    program = started("serves")
    program.serves()
    groups = {os.getpgid(pid) for pid in (*program.pids(1), *program.pids(2))}
    assert len(groups) == 2
    assert os.getpgid(program.process.pid) not in groups


ALONE = {
    "sqlite:///:memory:": ("--store", "sqlite:///:memory:"),
    "no file": ("--store", "sqlite://"),
    "conversations in memory": ("--conversations", "memory://"),
    "a model": ("--local-llm",),
}


@pytest.mark.parametrize("what", ALONE)
def test_what_only_one_process_can_have_is_refused_in_one_sentence(what, tmp_path):
    ended = lapse(tmp_path, "serve", "--port", "0", "--workers", "2", *ALONE[what])
    assert ended.returncode == 1
    assert re.fullmatch(r"lapse: --workers 2: each process would [^\n]+\n", ended.stderr)
