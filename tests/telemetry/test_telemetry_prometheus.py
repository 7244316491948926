"""A real Prometheus scrapes a real server under load: alerts and dashboard find what they ask."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from lapse.ttl import Decision, Scope
from lapse.ttl.decision import Reason
from parts import store_with_parts
from serving import AGENTS, eventually, serving

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "ops" / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((ROOT / "ops" / "grafana" / "lapse.json").read_text("utf-8"))

METRIC = re.compile(r"\blapse_\w+")
PARTS = re.compile(r"_(bucket|count|sum)$")

if shutil.which("prometheus") is None and "CI" not in os.environ:
    pytest.skip(
        "NO PROMETHEUS: apt-get install prometheus, and this is tried, too", allow_module_level=True
    )


def queries():
    """Return the queries of each panel, by its title, and of the annotations."""
    found = [
        (panel["title"], target["expr"])
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]
    return found + [(one["name"], one["expr"]) for one in DASHBOARD["annotations"]["list"]]


def names(text):
    return {PARTS.sub("", name) for name in METRIC.findall(text)}


def test_alerts_and_dashboard_use_existing_metrics_only():
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `(lapse_\w+)` \|", page, re.MULTILINE))
    query_prometheus = names(ALERTS.read_text("utf-8")) | names(
        " ".join(expr for _, expr in queries())
    )
    assert query_prometheus
    assert query_prometheus <= documented


def test_each_alert_is_documented_and_tested():
    alerts = set(re.findall(r"- alert: (\w+)", ALERTS.read_text("utf-8")))
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert set(re.findall(r"^\| (Lapse\w+) \|", page, re.MULTILINE)) == alerts
    tried = ALERTS.with_name("alerts_test.yml").read_text("utf-8")
    for alert in alerts:
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", tried), f"{alert} never fires"


def test_the_alerts_fire_exactly_when_they_should():
    """Seen to fail with the second window of LapseLatenessBurning left out."""
    done = subprocess.run(
        ["promtool", "test", "rules", ALERTS.with_name("alerts_test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def prometheus(folder, server):
    """Run a Prometheus that scrapes a server twice a second; yield a client of it."""
    parts = urlsplit(server.url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "lapse",
                "metrics_path": f"{parts.path}/metrics",
                "static_configs": [{"targets": [parts.netloc]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), "utf-8")  # JSON is YAML, too
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=20)


def decide(folder):
    """Have a TTL learnt, as a month of first messages would."""

    async def work():
        store = store_with_parts(f"sqlite:///{folder}/lapse.db")
        learnt = Decision(
            Scope("parrot", ""),
            datetime.now(UTC),
            Reason.CHOSEN,
            ttl=timedelta(minutes=20),
            observations=1000,
            missed=30,
            bound=0.04,
        )
        found = await store.ttl_round()
        assert await store.record_decisions([learnt], slot=1, version=found.version)
        await store.close()

    asyncio.run(work())


@contextmanager
def load(server):
    """Send the requests of users until cancelled."""
    stop = threading.Event()
    faults = []

    def users():
        try:
            while not stop.is_set():
                server.run(server.create())
                come_back = server.short_lived()
                server.run(come_back)
                server.client.post(
                    server.path(server.create()) + "/run", json={"message": "hello"}
                ).raise_for_status()
        except Exception as fault:  # noqa: BLE001 - told below
            faults.append(fault)

    thread = threading.Thread(target=users)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not faults, faults


def query_prometheus(client, expr):
    """Return the values that a panel's query finds."""
    expr = expr.replace("$__rate_interval", "5s").replace("$app", ".*")
    answer = client.get("/query", params={"query": expr}).raise_for_status().json()
    return [float(sample["value"][1]) for sample in answer["data"]["result"]]


def answers(client):
    """Return whether Prometheus is up and has seen a message that found an expired session."""
    try:
        return query_prometheus(client, 'lapse_sessions_resurrected_total{cause="run"}')
    except httpx.HTTPError:
        return False


def test_each_panel_of_the_dashboard_finds_data(tmp_path):
    """Seen to fail with le="1" in place of "1.0", which is no bucket's label."""
    decide(tmp_path)
    with (
        serving(tmp_path, str(AGENTS), LAPSE_TTL_POLICY="shadow") as server,
        prometheus(tmp_path, server) as client,
        load(server),
    ):
        eventually(lambda: answers(client), within=60)
        for title, expr in queries():
            if title == "Brakes":
                continue  # annotations are there when a brake was set
            try:
                eventually(lambda expr=expr: found(query_prometheus(client, expr)), within=20)
            except AssertionError:
                pytest.fail(f"{title}: no data for {expr}")
        groups = client.get("/rules").json()["data"]["groups"]
        health = {rule["health"] for group in groups for rule in group["rules"]}
        firing = {alert["labels"]["alertname"] for alert in alerts(client)}
        assert health == {"ok"}
        assert firing == set(), "a server under load is no reason for an alert"


def alerts(client):
    found = client.get("/alerts").json()["data"]["alerts"]
    return [alert for alert in found if alert["state"] == "firing"]


def found(values):
    return any(not math.isnan(value) for value in values)
