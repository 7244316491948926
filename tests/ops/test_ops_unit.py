"""`ops/systemd`: a unit that systemd takes, and that gives the server as little as it needs."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from deployment import OPS, check_command, check_settings, program

from lapse.settings import Settings
from serving import LAPSE

UNIT = OPS / "systemd" / "lapse.service"
TEXT = UNIT.read_text("utf-8")


def values(name):
    return re.findall(rf"^{name}=(.*)$", TEXT, re.MULTILINE)


@pytest.fixture
def analyze(tmp_path):
    """Return a function that runs `systemd-analyze` on the unit, with this environment's lapse."""
    unit = tmp_path / UNIT.name
    unit.write_text(TEXT.replace("/opt/lapse/bin/lapse", LAPSE), "utf-8")

    def analyze(*arguments):
        return subprocess.run(
            [program("systemd-analyze"), *arguments, unit],
            capture_output=True,
            text=True,
            check=False,
        )

    return analyze


def test_systemd_takes_it_without_a_word(analyze):
    """Seen to fail with `Restart=on-fail`, and with `ProtectSytem=strict`, which it ignores."""
    done = analyze("verify", "--man=no")
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_hardened(analyze):
    """Seen to fail without `SystemCallFilter`."""
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=15")
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_command_and_variables_exist(monkeypatch):
    """Seen to fail with LAPSE_STORE in place of LAPSE_STORE_URL."""
    (start,) = values("ExecStart")
    program_path, *arguments = shlex.split(start)
    assert program_path == "/opt/lapse/bin/lapse"
    check_command(arguments)
    lines = " ".join(values("Environment"))
    variables = dict(one.split("=", 1) for one in shlex.split(lines))
    check_settings(monkeypatch, variables)
    (state,) = values("StateDirectory")
    for name in ("LAPSE_STORE_URL", "LAPSE_ARTIFACT_SERVICE_URI", "HOME"):
        assert f"/var/lib/{state}" in variables[name]


def test_it_has_the_time_to_end():
    """Seen to fail with TimeoutStopSec=10: runs alone may take as long."""
    (seconds,) = values("TimeoutStopSec")
    grace = Settings.model_fields["run_grace"].default
    assert int(seconds) >= grace.total_seconds() + 5
