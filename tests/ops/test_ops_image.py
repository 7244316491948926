"""`ops/container`: what the image holds and how it runs."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys

import pytest
from deployment import ROOT, check_command, check_settings, program

from serving import AGENTS, lapse, serving

DOCKERFILE = ROOT / "ops" / "container" / "Dockerfile"


def instructions():
    """Return the instructions with their arguments, stage by stage."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    stages = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        if name and stages:
            stages[-1].append((name, rest))
    return stages


def last(name):
    """Return the argument of an instruction of the image itself."""
    (found,) = [rest for one, rest in instructions()[-1] if one == name]
    return found


def test_hadolint_finds_no_fault():
    """Seen to fail with `apt-get install curl` without a version, and with `CMD lapse serve`."""
    done = subprocess.run(
        [program("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_wheel_is_built_from_is_copied_and_not_ignored():
    """Seen to fail without `clients`, to which a link in src leads: the wheel was not built."""
    copied = [
        ROOT / name
        for one, rest in instructions()[0]
        if one == "COPY"
        for name in rest.split()[:-1]
    ]
    kept = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert {ROOT / line[1:] for line in kept if line.startswith("!")} == set(copied)
    assert all(path.exists() for path in copied)
    for folder in copied:
        for file in folder.rglob("*"):
            assert any(file.resolve().is_relative_to(path) for path in copied), file


def test_it_is_not_root_and_gets_the_signals():
    """Seen to fail with `CMD lapse serve`, whose shell would keep SIGTERM to itself."""
    uid, gid = map(int, last("USER").split(":"))
    assert uid >= 10000
    assert gid >= 10000
    assert json.loads(last("ENTRYPOINT")) == ["lapse"]
    check_command(json.loads(last("CMD")))
    assert last("STOPSIGNAL") == "SIGTERM"


def test_its_variables_are_settings_that_write_into_its_volume_only(monkeypatch):
    """Seen to fail with LAPSE_LOGS_FORMAT."""
    variables = dict(re.findall(r"(\w+)=(\S+)", last("ENV")))
    check_settings(monkeypatch, variables)
    volume = last("VOLUME")
    assert last("WORKDIR") == variables["HOME"] == volume
    assert variables["LAPSE_STORE_URL"].startswith(f"sqlite:///{volume}/")
    assert variables["LAPSE_ARTIFACT_SERVICE_URI"].startswith(f"file://{volume}/")


def test_its_command_serves_nobody_until_they_are_authenticated(tmp_path):
    done = lapse(tmp_path, *json.loads(last("CMD"))[:-1], "0")
    assert done.returncode == 1
    assert "set LAPSE_AUTH" in done.stderr


def health(port):
    """Run the health check as the image does, on another port."""
    _, _, command = last("HEALTHCHECK").partition(" CMD ")
    assert "8000" in command
    assert "8000" in json.loads(last("CMD"))
    assert last("EXPOSE") == "8000"
    python, *rest = json.loads(command.replace("8000", str(port)))
    assert python == "python"
    return subprocess.run(
        [sys.executable, *rest], capture_output=True, text=True, timeout=30, check=False
    )


def test_its_health_check_tells_a_server_that_works_from_none(tmp_path):
    """Seen to fail with `/liveness` in place of `/livez`."""
    with serving(tmp_path, str(AGENTS)) as server:
        found = health(server.client.base_url.port)
        assert found.returncode == 0, found.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert health(free.getsockname()[1]).returncode != 0


@pytest.mark.parametrize("path", [".git", "tests", "lapse.db", ".env.local"])
def test_nothing_else_is_sent_to_the_builder(path):
    kept = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert kept[0] == "*"
    assert f"!{path}" not in kept
