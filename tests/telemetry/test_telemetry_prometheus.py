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
from prometheus_client.parser import text_string_to_metric_families

import prefixed
from lapse.ttl import Decision, Scope
from lapse.ttl.decision import Reason
from parts import store_with_parts
from receiving import receiving
from serving import AGENTS, USER, eventually, serving

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops" / "prometheus"
ALERTS = OPS / "alerts.yml"
DASHBOARD = json.loads((ROOT / "ops" / "grafana" / "lapse.json").read_text("utf-8"))

METRIC = re.compile(r"\blapse_\w+")
ROW = re.compile(r"^\| `(lapse_\w+)` \| \w+ \|([\w, ]*)\|", re.MULTILINE)
TOKEN = "scrape-" + "t" * 24
GUARDED = {
    "LAPSE_AUTH": "header",
    "LAPSE_AUTH_PROXIES": "127.0.0.1",
    "LAPSE_METRICS_TOKEN": TOKEN,
    "LAPSE_CREATES_PER_MINUTE_PER_USER": "0",
    "LAPSE_CREATES_PER_MINUTE_PER_ADDRESS": "0",
    "LAPSE_WAITING_PER_USER": "0",
    "LAPSE_WAITING_PER_ADDRESS": "0",
}
"""A server that believes a proxy's header; one user creates more than the quotas let one."""
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


def test_the_scrape_configuration_is_one_that_prometheus_takes(tmp_path):
    """Seen to fail with `authorisation` in place of `authorization`."""
    config = scrape_config(tmp_path, "127.0.0.1:8000")
    done = subprocess.run(
        ["promtool", "check", "config", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule files found" in done.stdout + done.stderr


def scrape_config(folder, *targets, token=TOKEN):
    """Return a copy of ops/prometheus for some servers, scraped twice a second."""
    copy = shutil.copytree(OPS, folder / "prometheus")
    config = copy / "prometheus.yml"
    text = config.read_text("utf-8").replace("interval: 15s", "interval: 500ms")
    text, named = re.subn(r"targets: \[.*\]", f"targets: {json.dumps(targets)}", text)
    assert named == 1
    config.write_text(text, "utf-8")
    (copy / "lapse.token").write_text(token + "\n", "utf-8")
    return config


@contextmanager
def prometheus(folder, *servers, token=TOKEN):
    """Run a Prometheus that scrapes servers as ops/prometheus says; yield a client of it."""
    config = scrape_config(folder, *(urlsplit(one.url).netloc for one in servers), token=token)
    if prefixed.prefix:
        text = config.read_text("utf-8")
        path = f"metrics_path: {prefixed.prefix}/metrics"
        config.write_text(text.replace("metrics_path: /metrics", path), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
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
    """It needs the token, because the server authenticates its callers.

    Seen to fail with le="1" in place of "1.0", which is no bucket's label, and without the token.
    """
    decide(tmp_path)
    policy = tmp_path / "policy.toml"
    policy.write_text('[default]\nidle = "90d"\n')
    with (
        receiving() as receiver,
        serving(
            tmp_path,
            str(AGENTS),
            LAPSE_TTL_POLICY="shadow",
            LAPSE_RETENTION_FILE=str(policy),
            **GUARDED,
            **receiver.settings(),
        ) as server,
        prometheus(tmp_path, server) as client,
    ):
        server.client.headers["X-Forwarded-User"] = USER
        with load(server):
            eventually(lambda: answers(client), within=60)
            for title, expr in queries():
                if title == "Brakes":
                    continue  # annotations are there when a brake was set
                try:
                    values = eventually(
                        lambda expr=expr: numbers(query_prometheus(client, expr)), within=20
                    )
                except AssertionError:
                    pytest.fail(f"{title}: no data for {expr}")
                low, high = BETWEEN[measured_unit(expr)]
                assert all(low <= value <= high for value in values), (title, expr, values)
            assert query_prometheus(client, "max(lapse_ttl_default_seconds)") == [30 * 60]
            groups = client.get("/rules").json()["data"]["groups"]
            health = {rule["health"] for group in groups for rule in group["rules"]}
            firing = {alert["labels"]["alertname"] for alert in alerts(client)}
        assert health == {"ok"}
        assert firing == set(), "a server under load is no reason for an alert"
        check_documented(server)


def check_documented(server):
    """Check that docs/metrics.md has what a server serves after it lived, label by label."""
    page = {
        name: {label.strip() for label in labels.split(",") if label.strip()}
        for name, labels in ROW.findall((ROOT / "docs" / "metrics.md").read_text("utf-8"))
    }
    answer = server.client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.text
    served = {}
    for family in text_string_to_metric_families(answer.text):
        name = family.name + ("_total" if family.type == "counter" else "")
        if name.startswith("lapse_") and not name.endswith("_created"):
            found = {frozenset(sample.labels.keys() - {"le"}) for sample in family.samples}
            served[name] = found
    assert served.keys() == page.keys()
    lived = {name for name, found in served.items() if found}
    assert len(lived) > len(page) * 0.7, page.keys() - lived
    for name in lived:
        assert served[name] == {frozenset(page[name])}, name


def test_the_unit_of_each_panel_is_what_its_queries_measure():
    """No Grafana draws it, so this says what Grafana would write beside the numbers.

    Seen to fail while errors of the store, a rate, were drawn as seconds.
    """
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            assert shown_unit(panel, target) == measured_unit(target["expr"]), (
                panel["title"],
                target["expr"],
            )
            is_rate = target["expr"].startswith("60 *")
            assert is_rate == ("per minute" in panel["title"]), panel["title"]


def shown_unit(panel, target):
    """Return the unit that Grafana shows for a query, which an override may change."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["id"] == "byFrameRefID":
            assert any(one["refId"] == override["matcher"]["options"] for one in panel["targets"])
            if override["matcher"]["options"] == target["refId"]:
                units = [one["value"] for one in override["properties"] if one["id"] == "unit"]
                unit = units[0] if units else unit
    return {"none": "short"}.get(unit, unit)


def measured_unit(expr):
    """Return in what a query measures, by the names and functions in it."""
    if "histogram_quantile(" in expr or expr == "vector(1)":
        return "s"
    if re.search(r"/ 0\.01$", expr):
        return "short"  # times the budget
    if re.search(r"_total.* / .*_total", expr) or re.search(r"_(miss_rate|bound)\{", expr):
        return "percentunit"
    if re.search(r"lapse_\w+_seconds\b", expr):
        return "s"
    if "rate(" in expr and not expr.startswith("60 *"):
        return "cps"
    return "short"


BETWEEN = {
    "s": (0, 24 * 3600),
    "percentunit": (0, math.inf),
    "short": (0, math.inf),
    "cps": (0, math.inf),
}
"""Where the values of a unit lie; a share of first messages may pass 1 within a short time."""


def test_a_scrape_needs_the_token(tmp_path):
    """Seen to fail with `may_scrape` that answers True for any bearer token."""
    with (
        serving(tmp_path, str(AGENTS), **GUARDED) as server,
        prometheus(tmp_path, server, token="another-" + "t" * 24) as client,
    ):
        target = eventually(lambda: seen(client), within=60)
        assert target["health"] == "down"
        assert "401" in target["lastError"]
        assert TOKEN not in server.log


def seen(client):
    """Return the target that Prometheus has tried to scrape."""
    try:
        (target,) = client.get("/targets").json()["data"]["activeTargets"]
    except (httpx.HTTPError, ValueError):
        return None
    return target if target["health"] != "unknown" else None


def alerts(client):
    found = client.get("/alerts").json()["data"]["alerts"]
    return [alert for alert in found if alert["state"] == "firing"]


def numbers(values):
    return [value for value in values if not math.isnan(value)]
