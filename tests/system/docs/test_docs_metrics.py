"""`docs/metrics.md` and the code name the same metrics, with the same types and labels."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from fastapi import FastAPI

from lapse import LapseSessionService, Settings, mount
from lapse.telemetry.labels import MOST_APPS, OTHER, AppLabels
from parts import store_with_parts

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(lapse_\w+)` \| (\w+) \|([\w, ]*)\| \S", re.MULTILINE)
SHOWN = re.compile(r"^# TYPE (lapse_\w+?)(?<!_created) ", re.MULTILINE)


async def everything() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the type and the labels of each metric of an application that Lapse is mounted in.

    Its own registry is read, not one that is made here: so no collector can be forgotten.
    """
    app = FastAPI()
    store = store_with_parts("sqlite:///:memory:")
    mount(app, LapseSessionService(store), Settings(sweeper=False), apps=["app"])
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://lapse") as client,
    ):
        await store.mark_swept()
        shown = (await client.get("/metrics")).text
    found = {}
    for collector in app.state.lapse_metrics.registry._collector_to_names:
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", getattr(family, "_labelnames", None))
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, tuple(labels))
    assert found.keys() == set(SHOWN.findall(shown))
    return found


async def test_the_page_lists_every_metric_and_no_other():
    """Seen to fail while the page lacked the metrics of quotas."""
    page = {
        name: (kind, tuple(label.strip() for label in labels.split(",") if label.strip()))
        for name, kind, labels in ROW.findall(PAGE.read_text("utf-8"))
    }
    assert page == await everything()


def test_the_page_explains_every_label():
    explained = set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", PAGE.read_text("utf-8"), re.MULTILINE))
    used = {
        label.strip()
        for _, _, labels in ROW.findall(PAGE.read_text("utf-8"))
        for label in labels.split(",")
        if label.strip()
    }
    assert used <= explained


def test_the_number_of_apps_with_labels_of_their_own_is_bounded():
    apps = AppLabels()
    first = [apps.of(f"app{number}") for number in range(MOST_APPS)]
    assert first == [f"app{number}" for number in range(MOST_APPS)]
    assert apps.of("one too many") == OTHER
    assert apps.of("app7") == "app7"
