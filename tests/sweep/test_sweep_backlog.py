"""A backlog expires without a change for each session, and all else comes out as with them."""

import asyncio
import logging
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from backends import DUE, HOUR, T0, TICK, create, key, levels, message, note
from lapse.core.feed import Feed
from lapse.core.lifecycle import ChangeKind, Expiries, Status
from lapse.store.records import Revision
from lapse.sweep.brake import Brakes
from lapse.sweep.rules import FEW, Brake, BrakeOptions, BrakeReason
from lapse.sweep.sweeper import BATCH_ALONE, BATCH_BESIDE, sweep_once
from lapse.telemetry.logs import log_change, log_expiries
from lapse.telemetry.metrics import Metrics

SECOND = timedelta(seconds=1)
LATE = DUE + HOUR
SHOP, DESK = FEW, FEW + 3
"""How many sessions each app has: only together are they a backlog."""


class Listener:
    """Hears single changes and backlogs, with the log and the metrics of a server."""

    def __init__(self):
        self.changes, self.many, self.metrics = [], [], Metrics()
        self.feed = Feed()
        self.feed.subscribe(self.changes.append, of_many=self.many.append)
        self.feed.subscribe(self.metrics.count_change, of_many=self.metrics.count_expiries)
        self.feed.subscribe(log_change, of_many=log_expiries)

    @property
    def keys(self):
        """The sessions of the backlogs heard of."""
        return sorted(one for expiries in self.many for one in expiries.keys)

    async def numbers(self, *apps):
        """Return the samples of the metrics that tell of apps, with the apps numbered."""
        lines = (await self.metrics.render()).decode().splitlines()
        found = {}
        for number, app in enumerate(apps):
            for line in lines:
                name, _, value = line.rpartition(" ")
                if f'app="{app}"' in name and "_created" not in name:
                    found[name.replace(app, f"app {number}")] = pytest.approx(float(value))
        return found


@pytest.fixture
def listener():
    return Listener()


async def fill(store, *apps, sizes=(SHOP, DESK)):
    """Create sessions whose deadlines are different, some with held events."""
    for app, size in zip(apps, sizes, strict=True):
        for number in range(size):
            where = key(f"s{number}", user=f"u{number % 3}", app=app)
            await create(store, where, now=T0 + number * 7 * SECOND)
        held = note(at=T0)
        await store.at(T0).append(key("s0", user="u0", app=app), held, Revision(T0, 0))


async def records(store, *apps, sizes=(SHOP, DESK)):
    """Return the records of the apps' sessions, with the apps numbered."""
    found = []
    for number, (app, size) in enumerate(zip(apps, sizes, strict=True)):
        for session in range(size):
            where = key(f"s{session}", user=f"u{session % 3}", app=app)
            record = await store.at(LATE).lifecycle(where)
            found.append(replace(record, key=where._replace(app_name=f"app {number}")))
    return found


async def expiries_counted(store):
    """Return how many expiries the store has counted of each app, and when."""
    counts = (await store.at(LATE).overview(since=timedelta(days=1))).counts
    return {(one.app_name, one.at): one.sessions for one in counts if one.kind == "expired"}


async def test_a_backlog_leaves_records_counts_and_metrics_as_single_expiries_do(store, caplog):
    """Seen to fail without the rider `count`, with a wrong `restorable_until`, and with values
    equal to a bound counted above it."""
    single, summed = Listener(), Listener()
    single.feed.subscribe(lambda _: None)
    await fill(store, "shop", "desk")
    one_by_one = await sweep_once(store.at(LATE), single.feed)
    await fill(store, "shop-2", "desk-2")
    at_once = await sweep_once(store.at(LATE), summed.feed)

    assert (single.many, len(single.changes)) == ([], SHOP + DESK)
    assert (summed.changes, len(summed.keys)) == ([], SHOP + DESK)
    assert replace(at_once, duration=one_by_one.duration, braking=one_by_one.braking) == one_by_one
    assert one_by_one.latest == HOUR
    assert await records(store, "shop-2", "desk-2") == await records(store, "shop", "desk")
    found = await levels(store)
    assert found == {
        (app, Status.EXPIRED): size
        for app, size in (("shop", SHOP), ("desk", DESK), ("shop-2", SHOP), ("desk-2", DESK))
    }
    assert await summed.numbers("shop-2", "desk-2") == await single.numbers("shop", "desk")
    numbers = await summed.numbers("shop-2")
    assert numbers['lapse_sessions_expired_total{app="app 0"}'] == SHOP
    assert numbers['lapse_expiry_lateness_seconds_bucket{app="app 0",le="3600.0"}'] == SHOP
    counted = await expiries_counted(store)
    assert {app: sessions for (app, _), sessions in counted.items()} == {
        app: size for (app, _), size in found.items()
    }
    assert len({moment for _, moment in counted}) == 1


async def test_few_due_sessions_expire_one_by_one_and_one_more_is_a_backlog(
    store, listener, caplog
):
    """Seen to fail with FEW sessions that were a backlog already."""
    caplog.set_level(logging.INFO, logger="lapse")
    await fill(store, "shop", sizes=(FEW,))
    await sweep_once(store.at(LATE), listener.feed)
    assert (len(listener.changes), listener.many) == (FEW, [])
    lines = [record for record in caplog.records if record.name == "lapse.changes"]
    assert [line.getMessage() for line in lines] == ["session expired"] * FEW
    caplog.clear()
    await fill(store, "shop-2", "desk", sizes=(FEW, 1))
    await sweep_once(store.at(LATE), listener.feed)
    assert len(listener.changes) == FEW
    lines = [record for record in caplog.records if record.name == "lapse.changes"]
    assert sorted((one.getMessage(), one.app, one.sessions, one.latest_s) for one in lines) == [
        ("sessions expired", "desk", 1, 3600.0),
        ("sessions expired", "shop-2", FEW, 3600.0),
    ]


async def test_a_consumer_that_takes_no_expiries_gets_every_change_and_so_do_all(store, listener):
    """Seen to fail with a sweep that does not ask the feed."""
    alone = []
    leave = listener.feed.subscribe(alone.append)
    await fill(store, "shop", "desk")
    await sweep_once(store.at(LATE), listener.feed)
    assert len(alone) == SHOP + DESK
    assert (listener.changes, listener.many) == (alone, [])
    leave()
    await fill(store, "shop-2", "desk-2")
    await sweep_once(store.at(LATE), listener.feed)
    assert len(alone) == SHOP + DESK
    assert len(listener.keys) == SHOP + DESK


async def test_a_backlog_names_its_sessions(store, listener):
    await fill(store, "shop", "desk")
    await sweep_once(store.at(LATE), listener.feed)
    assert listener.keys == sorted(
        key(f"s{number}", user=f"u{number % 3}", app=app)
        for app, size in (("shop", SHOP), ("desk", DESK))
        for number in range(size)
    )
    assert {expiries.at for expiries in listener.many} == {LATE}


async def test_what_deserves_a_change_of_its_own_gets_it_in_a_backlog_too(store, stock, listener):
    """A session that ADK's tables hold is kept, and one that had a message raises the alarm.

    Seen to fail with an `expire_backlog` that asks neither for ADK's tables nor for the time of
    the first message.
    """
    await fill(store, "shop", "desk")
    await stock.create_session(app_name="shop", user_id="u1", session_id="s1")
    await stock.rows(
        "UPDATE lapse_lobby SET first_message_at = created_at "
        "WHERE app_name = 'desk' AND session_id = 's2'"
    )
    report = await sweep_once(store.at(LATE), listener.feed)
    assert (report.expired, report.kept, report.full) == (SHOP + DESK - 1, 1, False)
    kept, wrong = key("s1", user="u1", app="shop"), key("s2", user="u2", app="desk")
    singles = {change.record.key: change.kind for change in listener.changes}
    assert singles == {kept: ChangeKind.KEPT, wrong: ChangeKind.EXPIRED}
    assert len(listener.keys) == len(set(listener.keys)) == SHOP + DESK - 2
    assert {kept, wrong}.isdisjoint(listener.keys)
    alarm = (await listener.metrics.render()).decode()
    assert "lapse_used_sessions_expired_total 1.0" in alarm
    assert (await store.at(LATE).lifecycle(kept)).status is Status.USED


async def test_a_backlog_takes_the_longest_overdue_and_no_session_before_its_deadline(store):
    """Seen to fail with `expires_at < :now`, and without an order."""
    for number in (3, 1, 4, 0, 2):
        await create(store, f"s{number}", now=T0 + number * TICK)

    async def taken(limit, now):
        of_apps = await store.at(now).expire_backlog(limit)
        return sorted(one.session_id for expiries in of_apps for one in expiries.keys)

    assert await taken(9, DUE - TICK) == []
    assert await taken(9, DUE) == ["s0"]
    assert await taken(2, LATE) == ["s1", "s2"]
    assert await taken(9, LATE) == ["s3", "s4"]
    assert await taken(9, LATE) == []


async def test_a_backlog_keeps_what_its_sessions_hold(store):
    revision = await create(store, "s1", state={"a": 1}, metadata={"m": 1})
    held = await store.at(T0).append(key(), note(), revision)
    (expiries,) = await store.at(DUE).expire_backlog(9)
    assert expiries == Expiries("app", DUE, (0.0,), expiries.named)
    assert await store.at(DUE).read(key()) is None
    await store.at(DUE).append(key(), message(at=DUE), held.value.revision)
    found = await store.at(DUE).read(key())
    assert [event.id for event in found.events] == ["n1", "m1"]
    assert found.state == {"a": 1, "noted": "n1"}
    assert (await store.at(DUE).lifecycle(key())).metadata == {"m": 1}


async def test_while_clean_up_is_switched_off_no_backlog_expires(open_store):
    store = await open_store(enforced=False)
    await create(store)
    assert await store.at(LATE).expire_backlog(9) == ()


async def test_a_brake_holds_a_backlog_if_nothing_is_restorable(open_store):
    """Seen to fail without `is_braked` in `expire_backlog`."""
    store = await open_store(horizon=timedelta(0))
    for number in range(3):
        await create(store, f"s{number}")
    brake = Brake(BrakeReason.SHARE, DUE, DUE + HOUR, sessions=3)
    await store.at(DUE).set_brake(brake)
    assert await store.at(LATE).expire_backlog(9) == ()
    await store.at(LATE).release_brake(since=DUE)
    (expiries,) = await store.at(LATE).expire_backlog(9)
    assert len(expiries) == 3
    assert (await store.at(LATE).purge_due(9)).value == 3


@pytest.mark.parametrize("seed", range(3))
async def test_a_message_at_the_deadline_survives_every_sweep_of_a_backlog(two_stores, seed):
    """The message wins, always.

    The orders come by chance; `tests/system/replicas/test_replicas_races.py` has the one order
    that a wrong sweep loses, with a wrong sweep.
    """
    names = [f"s{number}" for number in range(12)]
    for name in names:
        await create(two_stores[0], name)

    async def say(name, before):
        event = message(f"m-{name}", at=DUE - before)
        await two_stores[0].at(DUE - before).append(key(name), event, Revision(T0, 0))

    async def sweep(store):
        found = []
        while of_apps := await store.at(DUE).expire_backlog(5):
            found += [one for expiries in of_apps for one in expiries.keys]
        return found

    calls = [
        *(say(name, number % 2 * TICK) for number, name in enumerate(names)),
        *(sweep(store) for store in two_stores * 2),
    ]
    order = list(range(len(calls)))
    random.Random(seed).shuffle(order)
    tasks = {place: asyncio.create_task(calls[place]) for place in order}
    done = await asyncio.gather(*(tasks[place] for place in range(len(calls))))
    swept = [one for found in done[len(names) :] for one in found]
    assert len(swept) == len(set(swept))
    for name in names:
        record = await two_stores[1].at(LATE).lifecycle(key(name))
        assert record.status is Status.USED
        assert [e.id for e in (await two_stores[1].at(LATE).read(key(name))).events] == [
            f"m-{name}"
        ]


class TestBatches:
    """How much expires at once does not depend on the kind of store."""

    @pytest.fixture
    def store_url(self):
        return "sqlite:///:memory:"

    async def test_a_process_that_serves_others_expires_less_at_once(self, store, listener):
        """Seen to fail with a feed that does not note when it was published in."""
        made = BATCH_ALONE + 2 * BATCH_BESIDE
        await asyncio.gather(*(create(store, f"s{number}") for number in range(made)))
        report = await sweep_once(store.at(LATE), listener.feed)
        assert (report.expired, report.full) == (BATCH_ALONE, True)
        listener.feed.publish([])  # as a transition without a change does
        for full in (True, True, False):
            report = await sweep_once(store.at(LATE), listener.feed)
            assert (report.expired, report.full) == (full * BATCH_BESIDE, full)
        report = await sweep_once(store.at(LATE), listener.feed, batch=7)
        assert not report.did_something

    async def test_a_process_that_only_sweeps_expires_much_at_once_though_it_purges(
        self, open_store, listener
    ):
        """Seen to fail with a sweep's own purges taken for other work: 200."""
        store = await open_store(horizon=timedelta(0))
        await asyncio.gather(*(create(store, f"s{number}") for number in range(2 * BATCH_ALONE)))
        brakes = Brakes(BrakeOptions(sessions=1_000_000, share=0.99))
        for _ in range(2):
            report = await sweep_once(store.at(LATE), listener.feed, brakes=brakes)
            assert report.expired == BATCH_ALONE
            assert report.purged > 0
