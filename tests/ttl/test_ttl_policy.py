"""The TTL policy on every store: rounds, replicas that follow them, and waiting sessions."""

import asyncio
from datetime import timedelta

import pytest

from backends import NO_STATE, T0, TTL, Clocked, key, message
from lapse import LapseSessionService, session_service
from lapse.core.ages import EDGES
from lapse.core.errors import InvalidValueError, StoreUnavailableError
from lapse.core.feed import Feed
from lapse.core.lifecycle import ChangeKind
from lapse.ttl import Decision, Policy, Reason, Scope, Targets
from lapse.ttl.policy import TtlPolicy
from lapse.ttl.store import TtlStore
from parts import Store, store_with_parts

NOON = T0
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TARGETS = Targets()
PLAIN = next(f"p{number}" for number in range(999) if not key(f"p{number}").in_control_group)
CONTROL = next(f"a{number}" for number in range(999) if key(f"a{number}").in_control_group)


async def add_first_messages(store, count, age, *, at=NOON, prefix="s", segment=""):
    """Create a session for each of `count` users, and give it a first message at that age."""
    for number in range(count):
        name = key(f"{prefix}{number}", user=f"{prefix}{number}")
        made = await store.at(at).create(
            name, state=NO_STATE, ttl=2 * DAY, metadata={"segment": segment}
        )
        await store.at(at + age).append(name, message(), made.value.revision)


class Replica(TtlPolicy):
    """The policy of one replica, on a store whose clock stands where the last look was."""

    now = None

    def __init__(self, store, feed, mode):
        super().__init__(Clocked(store, lambda: self.now), feed, TARGETS, mode)

    async def look_at(self, now):
        self.now = now
        return await self.poll()


def policy(store, mode=Policy.ADAPTIVE, feed=None):
    return Replica(store, feed or Feed(), mode)


async def test_one_replica_decides_and_all_replicas_follow(two_stores):
    """Seen to fail when a round did not move the slot."""
    await add_first_messages(two_stores[0], 60, timedelta(minutes=2), segment="new")
    now = NOON + 3 * DAY
    replicas = [policy(store) for store in two_stores * 2]
    made = await asyncio.gather(*(replica.look_at(now) for replica in replicas))
    assert sum(made) == 1
    assert not any([await replica.look_at(now + HOUR / 3) for replica in replicas])
    for replica in replicas:
        assert set(replica.in_force) == {Scope("app"), Scope("app", "new")}
        # From half an hour it falls by a fifth a day.
        assert replica.ttl_for(key(PLAIN), {"segment": "new"}) == 0.8 * TTL
        assert replica.in_force == replicas[0].in_force
    (first, second) = replicas[0].in_force.values()
    assert (first.reason, first.observations, first.missed) == (Reason.HELD, 60, 0)
    assert second.wanted == first.wanted == EDGES[24]
    assert EDGES[23] < timedelta(minutes=2) <= EDGES[24]


async def test_each_day_has_one_decision_with_the_figures_it_is_based_on(store):
    await add_first_messages(store, 60, timedelta(minutes=2))
    replica = policy(store)
    for hours in range(0, 49, 6):
        await replica.look_at(NOON + 3 * DAY + hours * HOUR)
    decisions = await store.ttl_decisions(newest=99)
    assert [decision.at.date() for decision in decisions] == [
        (NOON + days * DAY).date() for days in (3, 4, 5)
    ]
    ttls = [decision.ttl for decision in decisions]
    assert [round(ttl / TTL, 6) for ttl in ttls] == [0.8, 0.64, 0.512]
    assert {decision.first_day for decision in decisions} == {NOON.date()}
    assert decisions[-1].targets == TARGETS.as_document()


async def test_the_guard_raises_the_ttl_within_the_hour_and_once(store):
    replica = policy(store)
    await replica.look_at(NOON - HOUR)
    assert replica.ttl_for(key(PLAIN), {}) == TTL
    await add_first_messages(store, 110, 4 * HOUR)
    assert await replica.look_at(NOON + 5 * HOUR)
    (raised,) = await store.ttl_decisions(newest=9)
    assert raised.reason is Reason.RAISED
    assert 4 * HOUR <= raised.ttl < 4.5 * HOUR
    assert raised.held_until == NOON + 5 * HOUR + TARGETS.horizon
    assert replica.ttl_for(key(PLAIN), {}) == raised.ttl
    await replica.look_at(NOON + 6 * HOUR)
    assert len(await store.ttl_decisions(newest=9)) == 1


async def test_shadow_mode_applies_no_decision_and_fixed_mode_makes_none(store):
    await add_first_messages(store, 60, timedelta(minutes=2))
    now = NOON + 3 * DAY
    fixed = policy(store, Policy.FIXED)
    assert not await fixed.look_at(now)
    shadow = policy(store, Policy.SHADOW)
    assert await shadow.look_at(now)
    assert shadow.in_force[Scope("app")].ttl == 0.8 * TTL
    for replica in (fixed, shadow):
        for name in (PLAIN, CONTROL):
            assert replica.ttl_for(key(name), {}) == TTL


async def test_the_control_group_of_every_segment_gets_the_cap(store):
    adaptive = policy(store)
    assert adaptive.ttl_for(key(CONTROL), {}) == TARGETS.cap
    assert adaptive.ttl_for(key(PLAIN), {"segment": "x"}) == TTL


async def test_a_decrease_shortens_no_waiting_session(store):
    replica = policy(store)
    await add_first_messages(store, 60, timedelta(minutes=2))
    now = NOON + 3 * DAY

    ttl = replica.ttl_for(key(PLAIN), {})
    await store.at(now).create(key("lives"), state=NO_STATE, ttl=ttl, metadata={})
    await replica.look_at(now)
    assert replica.ttl_for(key(PLAIN), {}) < ttl
    assert (await store.at(now).lifecycle(key("lives"))).expires_at == now + ttl


async def look_at(policy, now):
    policy._store = TtlStore(policy._store._database.at(now))
    return await policy.poll()


async def raise_the_ttl(store, replica):
    """Let two sessions wait, one of them with a TTL of its own, while the TTL is raised."""
    now = NOON + 5 * HOUR
    await look_at(replica, now - 2 * HOUR)
    for name, ttl in (("waits", TTL), ("own", TTL / 2)):
        await store.at(now).create(key(name), state=NO_STATE, ttl=ttl, metadata={})
    await add_first_messages(store, 110, 4 * HOUR)
    at = now + TTL / 4
    await look_at(replica, at)
    return now, at


def kinds_and_ids(changes):
    return [(change.kind, change.record.key.session_id) for change in changes]


async def test_an_increase_lengthens_sessions_that_wait_already(store):
    feed, changes = Feed(), []
    feed.subscribe(changes.append)
    replica = policy(store, feed=feed)
    now, at = await raise_the_ttl(store, replica)
    raised = replica.ttl_for(key(PLAIN), {})
    assert kinds_and_ids(changes) == [(ChangeKind.EXTENDED, "waits")]
    assert (await store.at(at).lifecycle(key("waits"))).expires_at == now + raised
    assert (await store.at(at).lifecycle(key("own"))).expires_at == now + TTL / 2


def by_default(store_url):
    service = LapseSessionService(store_with_parts(store_url))
    service.policy.mode = Policy.ADAPTIVE  # by default it is fixed and lengthens nothing
    return service


def by_the_registry(store_url):
    return session_service(f"lapse:{store_url}")


@pytest.mark.parametrize("made", [by_default, by_the_registry])
async def test_the_feed_of_a_service_gets_the_extensions_of_its_policy(
    store_url, made, monkeypatch
):
    """Seen to fail with a policy that has a feed of its own."""
    monkeypatch.setenv("LAPSE_TTL_POLICY", "adaptive")
    changes = []
    async with made(store_url) as service:
        service.feed.subscribe(changes.append)
        await raise_the_ttl(Store(service.store), service.policy)
    assert kinds_and_ids(changes) == [(ChangeKind.EXTENDED, "waits")]


async def test_a_started_policy_follows_decisions_until_it_is_stopped(two_stores, monkeypatch):
    monkeypatch.setattr("lapse.ttl.policy._POLL_INTERVAL", timedelta(milliseconds=10))
    decider, follower = two_stores[0], policy(two_stores[1])
    for _ in range(2):
        await follower.start()
    found = await decider.ttl_round()
    decision = Decision(Scope("app"), found.now, Reason.CHOSEN, ttl=2 * TTL)
    assert await decider.record_decisions([decision], slot=found.slot or 0, version=found.version)
    async with asyncio.timeout(30):
        while follower.ttl_for(key(PLAIN), {}) != 2 * TTL:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    for _ in range(2):
        await follower.stop()


async def test_an_outage_is_logged_by_the_policy_once_and_so_is_its_end(store, monkeypatch, caplog):
    monkeypatch.setattr("lapse.ttl.policy._POLL_INTERVAL", timedelta(milliseconds=1))
    monkeypatch.setattr("lapse.core.background._FIRST_RETRY", timedelta(milliseconds=1))
    replica, looks, real = policy(store), asyncio.Queue(), TtlStore.ttl_round

    async def broken(_self):
        looks.put_nowait(None)
        raise StoreUnavailableError("gone fishing")

    await replica.start()
    monkeypatch.setattr(TtlStore, "ttl_round", broken)
    for _ in range(3):
        await asyncio.wait_for(looks.get(), 30)
    monkeypatch.setattr(TtlStore, "ttl_round", real)
    async with asyncio.timeout(30):
        while len(caplog.messages) < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    await replica.stop()
    begins, ends = caplog.messages
    assert begins == "the TTL policy cannot work and will keep trying: gone fishing"
    assert ends.startswith("the TTL policy works again, after ")


async def test_complete_days_are_folded_whatever_the_mode(store):
    await add_first_messages(store, 3, timedelta(minutes=2))
    before = await store.observed(since=NOON.date())
    recent = {"newest": 9, "max_age": timedelta(days=9)}
    for now, left in ((NOON + 3 * DAY, 3), (NOON + 5 * DAY, 0)):
        await policy(store, Policy.FIXED).look_at(now)
        assert len(await store.at(now).recent_first_messages(**recent)) == left
        assert await store.observed(since=NOON.date()) == before


@pytest.mark.parametrize("mode", [Policy.SHADOW, Policy.ADAPTIVE])
async def test_nothing_is_learnt_without_a_horizon(open_store, mode):
    store = await open_store(horizon=timedelta(0))
    with pytest.raises(InvalidValueError, match="LAPSE_RESTORE_HOURS"):
        policy(store, mode)
