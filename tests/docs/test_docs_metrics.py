"""`docs/metrics.md` and the code name the same metrics, with the same types and labels."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from lapse.changes import Feed
from lapse.metric_labels import MOST_APPS, OTHER, AppLabels
from lapse.metrics import Metrics
from lapse.policy import TtlPolicy
from lapse.policy_metrics import TtlMetrics
from lapse.run_metrics import RunMetrics
from lapse.stores import store_from_url
from lapse.ttl import DEFAULT_TTL, Targets

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(lapse_\w+)` \| (\w+) \|([\w, ]*)\| \S", re.MULTILINE)


async def everything() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the type and the labels of each metric, of a process that has all of them."""
    store = store_from_url("sqlite:///:memory:")
    await store.open()
    await store.mark_swept()
    metrics = Metrics(store)
    policy = TtlPolicy(store, Targets.around(DEFAULT_TTL, timedelta(days=1)), feed=Feed())
    metrics.registry.register(TtlMetrics(policy, metrics.apps))
    RunMetrics(metrics.registry, metrics.apps)
    metrics.watch_streams(lambda: 0)
    await metrics.render()
    found = {}
    for collector in metrics.registry._collector_to_names:
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", getattr(family, "_labelnames", None))
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, tuple(labels))
    await store.close()
    return found


async def test_the_page_has_every_metric_and_no_other():
    page = {
        name: (kind, tuple(label.strip() for label in labels.split(",") if label.strip()))
        for name, kind, labels in ROW.findall(PAGE.read_text("utf-8"))
    }
    assert page == await everything()


def test_every_label_is_explained():
    explained = set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", PAGE.read_text("utf-8"), re.MULTILINE))
    used = {
        label.strip()
        for _, _, labels in ROW.findall(PAGE.read_text("utf-8"))
        for label in labels.split(",")
        if label.strip()
    }
    assert used <= explained


def test_the_apps_that_have_labels_of_their_own_are_bounded():
    apps = AppLabels()
    first = [apps.of(f"app{number}") for number in range(MOST_APPS)]
    assert first == [f"app{number}" for number in range(MOST_APPS)]
    assert apps.of("one too many") == OTHER
    assert apps.of("app7") == "app7"
