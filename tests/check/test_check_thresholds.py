"""`lapse check`, the operators' pages and the alerts find fault with the same numbers."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from backends import T0
from lapse.check import thresholds
from lapse.cli.check import _contents, _first_messages, _retention, _sweeper, _webhook
from lapse.core.lifecycle import ChangeKind, Rules, Status
from lapse.dashboard.verdicts import Reading, verdicts
from lapse.overview.store import Counted, Overview, Tally
from lapse.retention.levels import RetentionLevels
from lapse.retention.rules import Policy as RetentionPolicy
from lapse.retention.state import RetentionState
from lapse.retention.store import Confirmation
from lapse.settings import Settings
from lapse.store.database import Inspection
from lapse.ttl import Policy, Targets
from lapse.webhooks.store import WebhookLevels

ALERTS = Path(__file__).parents[2] / "ops" / "prometheus" / "alerts.yml"
SECOND = timedelta(seconds=1)
LIMIT = re.compile(r"[<>]=? *([\d.]+)")

CALM = Overview(
    now=T0,
    tallies=[Tally("app", Status.WAITING, 3)],
    counts=[],
    next_expiry=T0 + SECOND,
    next_purge=None,
    swept_at=T0,
    brake=None,
)


def heard(used, resurrected):
    return [
        Counted("app", ChangeKind.USED, T0, used),
        Counted("app", ChangeKind.RESURRECTED, T0, resurrected),
    ]


def page_says(overview, name):
    reading = Reading(overview, SECOND / 1000, Rules(), Policy.FIXED, Targets())
    return next(verdict.is_well for verdict in verdicts(reading) if verdict.name == name)


def check_says(overview, name):
    if name == "heard":
        return _first_messages(overview).ok
    return _sweeper(overview, Settings()).ok


def alert_says(name, overview):
    """Return whether the limits of an alert's expression let an overview pass."""
    match name:
        case "LapseSweeperStalled":
            value = (overview.now - overview.swept_at).total_seconds()
            return value <= limits(name)[0]
        case "LapseRetentionBehind":
            return overview.overdue.total_seconds() <= limits(name)[0]
        case "LapseRetentionUnconfirmed":
            unconfirmed = overview.unconfirmed_for.total_seconds()
            return unconfirmed <= limits(name)[0] and not overview.faults
        case "LapseWebhookBehind":
            return overview.oldest.total_seconds() <= limits(name)[0] and not overview.given_up
        case "LapseSessionsOverdue":
            return overview.overdue.total_seconds() <= limits(name)[0]
        case _:
            used, resurrected = (count.sessions for count in overview.counts)
            share, enough = limits(name)
            return not (resurrected / used > share and used > enough)


def limits(name):
    rules = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"][0]["rules"]
    (expression,) = [rule["expr"] for rule in rules if rule.get("alert") == name]
    return [float(found) for found in LIMIT.findall(expression) if float(found) != 0]


@pytest.mark.parametrize("name", thresholds.IN_ALERTS)
def test_the_limits_in_an_alert_are_those_of_the_table(name):
    """Seen to fail with 180 s in the table."""
    assert tuple(limits(name)) == thresholds.IN_ALERTS[name]


@pytest.mark.parametrize(
    ("alert", "verdict", "overview", "is_well"),
    [
        ("LapseSweeperStalled", "sweeper", {"swept_at": T0 - 120 * SECOND}, True),
        ("LapseSweeperStalled", "sweeper", {"swept_at": T0 - 121 * SECOND}, False),
        ("LapseSessionsOverdue", "overdue", {"next_expiry": T0 - 60 * SECOND}, True),
        ("LapseSessionsOverdue", "overdue", {"next_expiry": T0 - 61 * SECOND}, False),
        ("LapseResurrectionSpike", "heard", {"counts": heard(50, 50)}, True),
        ("LapseResurrectionSpike", "heard", {"counts": heard(60, 6)}, True),
        ("LapseResurrectionSpike", "heard", {"counts": heard(60, 7)}, False),
    ],
)
def test_the_check_the_page_and_the_alert_agree(alert, verdict, overview, is_well):
    """Seen to fail with a check of overdue sessions only."""
    found = replace(CALM, **overview)
    told = [page_says(found, verdict), check_says(found, verdict), alert_says(alert, found)]
    assert told == [is_well] * 3


@pytest.mark.parametrize(("wrong", "is_well"), [(0, True), (1, False)])
def test_the_check_and_the_page_agree_about_used_sessions_that_expired(wrong, is_well):
    """The alert counts what its own processes did; these two look into the store.

    Seen to fail without the page's verdict.
    """
    reading = Reading(
        replace(CALM, used_but_expired=wrong), SECOND / 1000, Rules(), Policy.FIXED, Targets()
    )
    page = not any(verdict.name == "used" for verdict in verdicts(reading))
    check = next(_contents(Inspection(T0, 1, 1, "", used_but_expired=wrong), Settings()))
    assert [page, check.ok] == [is_well] * 2


@pytest.mark.parametrize(
    ("levels", "is_well"),
    [
        (WebhookLevels(), True),
        (WebhookLevels(5, 300 * SECOND), True),
        (WebhookLevels(5, 301 * SECOND), False),
        (WebhookLevels(given_up=1), False),
    ],
)
def test_the_check_the_page_and_the_alert_agree_about_the_webhook(levels, is_well):
    """Seen to fail with a page that forgets what was given up."""
    reading = Reading(CALM, SECOND / 1000, Rules(), Policy.FIXED, Targets(), webhook=levels)
    page = next(verdict for verdict in verdicts(reading) if verdict.name == "webhook")
    told = [page.is_well, _webhook(levels).ok, alert_says("LapseWebhookBehind", levels)]
    assert told == [is_well] * 3


POLICY = RetentionPolicy()


def retention(*, waits=0, unconfirmed=0, problems=(), braked=False):
    """Return how retention stands with a session that waits, or with a policy without effect."""
    confirmed = Confirmation(POLICY.digest, POLICY.text, T0, "ann")
    has_effect = not unconfirmed and not problems
    return RetentionState(
        file=Path("policy.toml"),
        policy=None if problems else POLICY,
        problems=problems,
        unconfirmed_for=unconfirmed * SECOND,
        confirmation=confirmed if has_effect else None,
        levels=RetentionLevels(T0, 0, 0, 0, 1, T0 - waits * SECOND, is_braked=braked),
    )


@pytest.mark.parametrize(
    ("alert", "state", "is_well"),
    [
        ("LapseRetentionBehind", retention(waits=3600), True),
        ("LapseRetentionBehind", retention(waits=3601), False),
        ("LapseRetentionBehind", retention(waits=3601, braked=True), True),
        ("LapseRetentionBehind", retention(waits=3601, unconfirmed=60), True),
        ("LapseRetentionUnconfirmed", retention(unconfirmed=86400), True),
        ("LapseRetentionUnconfirmed", retention(unconfirmed=86401), False),
        ("LapseRetentionUnconfirmed", retention(problems=("line 1: x",)), False),
    ],
)
def test_the_check_the_page_and_the_alert_agree_about_retention(alert, state, is_well):
    """Seen to fail with a check that forgets the faults."""
    reading = Reading(CALM, SECOND / 1000, Rules(), Policy.FIXED, Targets(), retention=state)
    page = next(verdict for verdict in verdicts(reading) if verdict.name == "retention")
    assert [page.is_well, _retention(state).ok, alert_says(alert, state)] == [is_well] * 3
