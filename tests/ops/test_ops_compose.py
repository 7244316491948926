"""`ops/compose`: it has the form that Compose takes, is hardened, and shows no secret."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml
from composed import COMPOSE, FILE, FOLDER, LAPSES, SERVICES, make_secrets, variables
from deployment import OPS, PUBLIC, ROOT, check_command, check_settings, program


def test_it_is_what_compose_takes():
    """Seen to fail with `depend_on`."""
    done = subprocess.run(
        [program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", FILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_hardened_and_open_to_this_machine_only(name):
    """Seen to fail with `8001:8000`, which every machine around reaches."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    asked = "healthcheck" in service or "8000" in service["command"]  # by the image's own
    assert asked


@pytest.mark.parametrize("name", LAPSES)
def test_each_command_and_setting_exists(name, tmp_path, monkeypatch):
    """Seen to fail with `sweep --follow`, and with LAPSE_SWEEP."""
    service = LAPSES[name]
    check_command(service["command"])
    (env_file,) = service["env_file"]
    given = variables(make_secrets(tmp_path) / env_file.removeprefix("secrets/"))
    assert "LAPSE_STORE_URL" in given
    check_settings(monkeypatch, given | service["environment"])


def test_servers_wait_for_the_tables_and_these_for_the_database():
    waits = {name: one.get("depends_on", {}) for name, one in SERVICES.items()}
    assert waits["migrate"] == {"postgres": {"condition": "service_healthy"}}
    for name in LAPSES.keys() - {"migrate"}:
        assert waits[name] == {"migrate": {"condition": "service_completed_successfully"}}
    assert SERVICES["migrate"]["restart"] == "no"


def test_exactly_one_service_sweeps():
    sweeping = [name for name, one in LAPSES.items() if one["command"][0] == "sweep"]
    assert sweeping == ["sweeper"]
    for name in LAPSES.keys() - {"sweeper"}:
        assert LAPSES[name]["environment"]["LAPSE_SWEEPER"] == "off"


def test_what_is_mounted_is_there():
    """Seen to fail with `../prometheus/alert.yml`."""
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"]
        for secret in service.get("secrets", ()):
            assert secret in COMPOSE["secrets"]
        if "build" in service:
            context = FOLDER / service["build"]["context"]
            assert context.resolve() == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()


def test_secrets_are_made_once_and_stand_nowhere_else(tmp_path):
    """Seen to fail with a script that makes them anew: the database would refuse the servers."""
    made = make_secrets(tmp_path)
    first = {file.name: file.read_text() for file in made.iterdir()}
    read = {f"secrets/{name}" for name in first}
    asked = {one["file"] for one in COMPOSE["secrets"].values()}
    asked |= {file for one in LAPSES.values() for file in one["env_file"]}
    assert asked <= read
    assert read - asked == {"secrets/admin_token"}, "who looks at the operators' pages reads it"
    assert make_secrets(tmp_path) == made
    assert {file.name: file.read_text() for file in made.iterdir()} == first

    assert made.stat().st_mode & 0o777 == 0o700
    for secret in COMPOSE["secrets"].values():
        # Containers read it as users of their own.
        assert (tmp_path / secret["file"]).stat().st_mode & 0o777 == 0o644
    random = [text for name, text in first.items() if not name.endswith(".env")]
    assert all(re.fullmatch("[0-9a-f]{48}", text) for text in random)
    assert len(set(random)) == len(random)
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert "ops/compose/secrets/" in ignored
    assert not re.search(r"(?i)(password|token|secret)[\"']?: [^/\n]*[0-9a-f]{8}", FILE.read_text())


def scrape():
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    return job


def test_prometheus_asks_each_process_and_has_the_alerts():
    """Seen to fail with a third server, and without the sweeper, which counts what it expires."""
    job = scrape()
    assert set(job["static_configs"][0]["targets"]) == {
        f"{name}:8000" for name, one in LAPSES.items() if "8000" in one["command"]
    }
    assert job.get("metrics_path", "/metrics") in PUBLIC
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    mounted = dict(one.split(":")[:2] for one in SERVICES["prometheus"]["volumes"])
    (rules,) = config["rule_files"]
    assert mounted["../prometheus/alerts.yml"] == rules
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_token"


def test_prometheus_takes_its_configuration(tmp_path):
    """Seen to fail with `credential_file`."""
    shutil.copytree(OPS / "prometheus", tmp_path / "etc")
    token = make_secrets(tmp_path) / "metrics_token"
    text = (FOLDER / "prometheus.yml").read_text("utf-8")
    text = text.replace("/etc/prometheus/", f"{tmp_path}/etc/")
    text = text.replace("/run/secrets/metrics_token", str(token))
    (tmp_path / "prometheus.yml").write_text(text, "utf-8")
    done = subprocess.run(
        [program("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_grafana_finds_prometheus_and_the_dashboard():
    """No Grafana runs here: this compares the files with each other.

    Seen to fail with another port in the address of Prometheus.
    """
    (source,) = yaml.safe_load((FOLDER / "grafana" / "datasources.yml").read_text("utf-8"))[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert SERVICES["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    dashboard = json.loads((OPS / "grafana" / "lapse.json").read_text("utf-8"))
    (asked,) = [one for one in dashboard["templating"]["list"] if one["type"] == "datasource"]
    assert asked["query"] == source["type"]
    mounted = dict(one.split(":")[:2] for one in SERVICES["grafana"]["volumes"])
    for kind in ("datasources", "dashboards"):
        place = mounted[f"./grafana/{kind}.yml"]
        assert place.startswith(f"/etc/grafana/provisioning/{kind}/")
    (provider,) = yaml.safe_load((FOLDER / "grafana" / "dashboards.yml").read_text("utf-8"))[
        "providers"
    ]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounted["../grafana/lapse.json"] == home == f"{provider['options']['path']}/lapse.json"
