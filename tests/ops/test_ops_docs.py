"""`docs/deploying.md`: what it prints exists, renders, and is what `ops/` has."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from chart import one_of, rendered
from deployment import OPS, ROOT, check_command, check_settings, program

from lapse.settings import setting_names
from postgres import blank
from serving import lapse

PAGE = (ROOT / "docs" / "deploying.md").read_text("utf-8")
SHELL = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_the_values_that_it_shows_make_a_chart(monkeypatch):
    """Seen to fail with `image: registry.example/agents:1`."""
    (text,) = re.findall(r"<!-- values -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    manifests = rendered(yaml.safe_load(text))
    kinds = {one["kind"] for one in manifests}
    assert {"Job", "Ingress", "PodDisruptionBudget", "ServiceMonitor", "PrometheusRule"} <= kinds
    pod = one_of(manifests, "Deployment")["spec"]["template"]["spec"]
    given = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    given.pop("LAPSE_STORE_URL")
    check_settings(monkeypatch, given)


def test_each_command_of_lapse_exists():
    """Seen to fail with `lapse sweep --follow`."""
    found = [shlex.split(one) for one in re.findall(r"`lapse ([a-z][^`]*)`", PAGE)]
    (docker,) = [line for line in SHELL if line.startswith("docker run")]
    found.append(shlex.split(docker.partition(" lapse serve ")[2]))
    found[-1].insert(0, "serve")
    found += [one.split(",") for line in SHELL for one in re.findall(r"--args=(\S+)", line)]
    assert len(found) > 5
    for command in found:
        check_command(command)


def test_each_file_and_setting_exists():
    """Seen to fail with `ops/compose/secret.sh`, and with LAPSE_RUN_GRACE."""
    for path in re.findall(r"\bops/[\w./-]+\w", PAGE):
        made = path.startswith("ops/compose/secrets/")
        assert made or (ROOT / path).exists(), path
    named = set(re.findall(r"\b(?:LAPSE|SESSION_CLEANUP)_[A-Z_]+\b", PAGE))
    assert named <= set(setting_names())


def test_settings_of_cloud_run_are_taken(monkeypatch):
    """Seen to fail with LAPSE_POOL_SIZE=0, and with a grace of runs that outlives the instance."""
    (text,) = re.findall(r"<!-- cloud run -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    variables = yaml.safe_load(text)
    assert all(isinstance(value, str) for value in variables.values())
    check_settings(monkeypatch, variables)
    assert int(variables["LAPSE_RUN_GRACE_SECONDS"]) + 2 < 10


def test_commands_are_those_that_the_files_say():
    """Seen to fail with `--detach` left out of one of the two."""
    for file, start in (
        ("container/Dockerfile", "docker build"),
        ("compose/compose.yaml", "docker compose"),
    ):
        (said,) = re.findall(rf"#\s+({start} .*)", (OPS / file).read_text("utf-8"))
        assert said in SHELL


def test_an_image_of_ones_own_is_a_good_one(tmp_path):
    """Seen to fail without the last USER, which would leave it root."""
    (text,) = re.findall(r"```dockerfile\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "Dockerfile"
    file.write_text(text, "utf-8")
    done = subprocess.run(
        # `lapse` is an image of this machine: it has no tag to pin.
        [program("hadolint"), "--ignore", "DL3006", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    image = (OPS / "container" / "Dockerfile").read_text("utf-8")
    assert (
        re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1]
        == re.findall(r"^USER (.*)$", image, re.MULTILINE)[-1]
    )
    check_command(json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[0]))


def test_a_database_at_the_socket_of_cloud_sql_is_reached(tmp_path):
    """Its folder has colons in its name, which elsewhere part a host from a port.

    Seen to fail with a name of the folder that does not exist.
    """
    (shown,) = re.findall(r"`(postgresql://\S+host=/cloudsql/\S+)`", PAGE)
    # The path of a socket has at most 107 bytes, so this does not stand in `tmp_path`.
    with blank() as url, TemporaryDirectory() as folder:
        there = urlsplit(url)
        given = parse_qs(there.query)
        (Path(folder) / "PROJECT:REGION:INSTANCE").symlink_to(given.pop("host")[0])
        asked = shown.replace("USER:PASSWORD", "postgres:unasked")
        asked = asked.replace("/DATABASE", there.path).replace("/cloudsql", folder)
        more = "".join(f"&{name}={value}" for name, (value,) in given.items())
        done = lapse(tmp_path, "migrate", LAPSE_STORE_URL=asked + more)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_it_is_found(page):
    assert "deploying.md)" in (ROOT / page).read_text("utf-8")
