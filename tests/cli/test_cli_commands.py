"""The commands, run as a user runs them."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from backends import store_at
from lapse.core.keys import SessionKey
from lived_sessions import created
from parts import store_with_parts
from serving import LAPSE, environment, eventually, lapse

LONG_AGO = datetime.now(UTC) - timedelta(days=3)


async def put(folder, count, *, now=None, ttl=timedelta(minutes=30), prefix="s"):
    """Create sessions at a given time."""
    store = store_with_parts(f"sqlite:///{folder}/lapse.db")
    for number in range(count):
        key = SessionKey("app", "ada", f"{prefix}{number}")
        await created(store_at(store, now), key, ttl=ttl)
    await store.close()


def statuses(folder):
    with closing(sqlite3.connect(folder / "lapse.db")) as connection:
        found = connection.execute("SELECT status, count(*) FROM lapse_lobby GROUP BY 1")
        return dict(found.fetchall())


def imported(folder, *arguments):
    """Return the modules that a command has imported when it is done.

    Coverage would import modules of its own.
    """
    given = environment()
    given.pop("COVERAGE_PROCESS_CONFIG", None)
    program = (
        "import sys\n"
        "from lapse.cli.main import app\n"
        "try:\n"
        "    app(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('|', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.rpartition("|")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["sweep"]])
def test_commands_that_need_no_agents_load_no_adk(tmp_path, arguments):
    modules = imported(tmp_path, *arguments)
    assert "lapse.cli.main" in modules
    assert not {name for name in modules if name.startswith(("google.adk", "google.genai"))}
    assert not modules & {"fastapi", "uvicorn"}


def test_the_help_names_every_command(tmp_path):
    shown = lapse(tmp_path, "--help")
    assert shown.returncode == 0
    for command in ("serve", "sweep", "verify"):
        assert command in shown.stdout


def test_an_unknown_command_is_refused_by_name(tmp_path):
    told = lapse(tmp_path, "swep")
    assert told.returncode == 2
    assert "swep" in told.stderr


async def test_one_sweep_expires_and_purges_what_is_due_and_reports_it(tmp_path):
    await put(tmp_path, 3, ttl=timedelta(milliseconds=1))
    await put(tmp_path, 2, prefix="waits")
    done = lapse(tmp_path, "sweep")
    assert (done.returncode, done.stdout) == (0, "expired 3, purged 0, kept 0\n")
    assert statuses(tmp_path) == {"expired": 3, "waiting": 2}
    again = lapse(tmp_path, "sweep")
    assert (again.stdout, again.stderr) == ("expired 0, purged 0, kept 0\n", "")


async def test_one_sweep_takes_everything_that_is_due(tmp_path):
    store = store_with_parts(f"sqlite:///{tmp_path}/lapse.db")
    await put(tmp_path, 2, now=LONG_AGO, prefix="old")
    await store.at(LONG_AGO + timedelta(hours=1)).expire_due(10)
    await store.close()
    await put(tmp_path, 1203, ttl=timedelta(milliseconds=1))
    done = lapse(tmp_path, "sweep", "--store", f"sqlite:///{tmp_path}/lapse.db")
    assert done.stdout == "expired 1203, purged 2, kept 0\n"
    assert statuses(tmp_path) == {"expired": 1203}


async def test_without_a_horizon_a_sweep_deletes_what_is_due(tmp_path):
    await put(tmp_path, 3, ttl=timedelta(milliseconds=1))
    done = lapse(tmp_path, "sweep", LAPSE_RESTORE_HOURS="0")
    assert done.stdout == "expired 3, purged 3, kept 0\n"
    assert statuses(tmp_path) == {}


async def test_a_sweep_writes_its_lines_in_the_format_asked_for(tmp_path):
    await put(tmp_path, 1, ttl=timedelta(milliseconds=1), prefix="canary-session-")
    done = lapse(tmp_path, "sweep", "--verbose", LAPSE_LOG_FORMAT="json")
    assert '"event": "session expired"' in done.stderr
    assert "canary-session-" not in done.stderr


async def test_a_sweep_prints_a_summary_and_no_line_for_each_session(tmp_path):
    """Not on a pipe either, as cron has one. Seen to fail with lines where no terminal is."""
    await put(tmp_path, 3, now=LONG_AGO, prefix="old")
    done = lapse(tmp_path, "sweep")
    assert (done.stdout, done.stderr) == ("expired 3, purged 0, kept 0\n", "")
    await put(tmp_path, 3, ttl=timedelta(milliseconds=1))
    told = lapse(tmp_path, "sweep", "--verbose").stderr
    assert told.count("session expired") == 3
    await put(tmp_path, 3, ttl=timedelta(milliseconds=1), prefix="more")
    silent = lapse(tmp_path, "sweep", "--quiet")
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")
    assert lapse(tmp_path, "sweep", "--quiet", "--json").returncode == 2


async def test_nothing_is_swept_while_clean_up_is_disabled(tmp_path):
    await put(tmp_path, 1, ttl=timedelta(milliseconds=1))
    refused = lapse(tmp_path, "sweep", SESSION_CLEANUP_ENABLED="false")
    assert refused.returncode == 1
    assert "SESSION_CLEANUP_ENABLED" in refused.stderr
    assert statuses(tmp_path) == {"waiting": 1}


@contextmanager
def watching(folder):
    """Run `lapse sweep --watch`; its output goes to `sweep.log`."""
    with (folder / "sweep.log").open("wb") as log:
        process = subprocess.Popen(
            [LAPSE, "sweep", "--watch"], cwd=folder, env=environment(), stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_sweep_with_watch_goes_on_until_it_is_stopped(tmp_path, number):
    await put(tmp_path, 2, ttl=timedelta(milliseconds=1))
    with watching(tmp_path) as process:
        eventually(lambda: statuses(tmp_path) == {"expired": 2})
        # Of sessions that others create it hears only by looking.
        await put(tmp_path, 1, ttl=timedelta(milliseconds=1), prefix="later")
        eventually(lambda: statuses(tmp_path) == {"expired": 3})
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
    said = (tmp_path / "sweep.log").read_text(encoding="utf-8")
    assert "sweeping until stopped" in said
    assert said.count("session expired") == 3
    assert "Traceback" not in said


def test_wrong_settings_stop_every_command_with_all_problems(tmp_path):
    settings = {"SESSION_CLEANUP_TTL_MINUTES": "soon", "LAPSE_SWEPER": "off"}
    for command in ("serve", "sweep"):
        refused = lapse(tmp_path, command, **settings)
        assert refused.returncode == 1
        assert "2 problems in the settings" in refused.stderr
        assert "SESSION_CLEANUP_TTL_MINUTES='soon'" in refused.stderr
        assert "did you mean LAPSE_SWEEPER?" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (tmp_path / "lapse.db").exists()


def test_settings_are_read_from_the_env_file_in_the_working_directory(tmp_path):
    (tmp_path / ".env.local").write_text("LAPSE_STORE_URL=sqlite:///mine.db\n", encoding="utf-8")
    assert lapse(tmp_path, "sweep").returncode == 0
    assert (tmp_path / "mine.db").exists()
