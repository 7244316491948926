"""The JSON of an overview: what it sums up, and how often it reads what it sums up."""

from datetime import timedelta

from backends import T0
from lapse.core.lifecycle import ChangeKind, Status
from lapse.overview.json import overview_json
from lapse.overview.store import Counted, Overview, Tally


class Read(list):
    """A list that counts how often it is read from its beginning."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def overview(apps):
    return Overview(
        now=T0,
        tallies=Read(
            Tally(app, status, number)
            for number, app in enumerate(apps)
            for status in (Status.WAITING, Status.USED)
        ),
        counts=Read(Counted(app, ChangeKind.CREATED, T0, 2) for app in apps for _ in range(2)),
        next_expiry=None,
        next_purge=None,
        swept_at=None,
        brake=None,
    )


def test_an_overview_has_sums_and_each_app():
    found = overview(["b", "a"])
    found.counts.append(Counted("counted", ChangeKind.USED, T0, 7))
    found.tallies.append(Tally("held", Status.EXPIRED, 5))
    told = overview_json(found, timedelta(hours=24))
    assert told["sessions"] == {"waiting": 1, "used": 1, "expired": 5, "archived": 0}
    assert (told["changes"]["created"], told["changes"]["used"]) == (8, 7)
    apps = {app["appName"]: app for app in told["apps"]}
    assert list(apps) == ["a", "b", "counted", "held"]
    assert apps["a"]["sessions"] == {"waiting": 1, "used": 1, "expired": 0, "archived": 0}
    assert (apps["a"]["changes"]["created"], apps["held"]["changes"]["created"]) == (4, 0)
    assert (apps["counted"]["changes"]["used"], apps["held"]["sessions"]["expired"]) == (7, 5)


def test_an_overview_is_read_as_often_for_many_apps_as_for_few():
    """Seen to fail with sums that look for each app's numbers among all: once for each app."""
    few, many = overview(["a"]), overview([f"app-{number}" for number in range(300)])
    for found in (few, many):
        overview_json(found, timedelta(hours=24))
    assert (many.counts.times, many.tallies.times) == (few.counts.times, few.tallies.times)


def test_an_overview_lists_the_largest_apps_and_says_how_many_it_leaves_out():
    """Its sums have all. Seen to fail with the first apps by name."""
    found = overview([f"app-{number}" for number in range(300)])
    found.counts.append(Counted("counted", ChangeKind.USED, T0, 7))
    told = overview_json(found, timedelta(hours=24), most_apps=2)
    assert [app["appName"] for app in told["apps"]] == ["app-298", "app-299"]
    assert told["appsLeftOut"] == 299
    assert told["changes"]["used"] == 7
