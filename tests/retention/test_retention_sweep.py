"""A sweep takes what a confirmed policy says, in batches, and nothing else, on every store."""

from datetime import timedelta

import pytest
from archiving import DAY, LATER, POLICY, whole

from backends import HOUR, T0, create, key, levels, message, use
from lapse.core.feed import Feed
from lapse.core.lifecycle import Cause, ChangeKind, Status
from lapse.retention.keeper import PurgeLimits, RetentionKeeper
from lapse.retention.policy import parse_policy
from lapse.sweep.rules import Brake, BrakeReason
from parts import Store

TEXT = "[default]\nidle = '30d'\narchive = '100d'\n"
PURGE = LATER + 100 * DAY


class Sweeping:
    """A keeper on a store at a moment, and the changes that it published."""

    def __init__(self, store: Store, path, text=TEXT, **limits):
        self._store, self._path, self._limits = store, path / "policy.toml", PurgeLimits(**limits)
        self._path.write_text(text)
        self.policy = parse_policy(text)
        self.kinds = []
        self._feed = Feed()
        self._feed.subscribe(lambda change: self.kinds.append(change.kind))

    def at(self, now):
        return RetentionKeeper(self._store.at(now).database, self._feed, self._path, self._limits)

    async def until_idle(self, now, steps=6):
        """Take several steps, each a second after the one before."""
        for number in range(steps):
            await self.at(now + number * timedelta(seconds=1)).step()

    async def confirm(self, now=T0):
        await self._store.at(now).confirm_retention(self.policy, by="op")


@pytest.fixture
def sweeping(store, tmp_path):
    return Sweeping(store, tmp_path)


async def status(store, name="s1"):
    return (await store.at(LATER).lifecycle(key(name))).status


async def test_without_a_confirmation_nothing_is_ever_taken(store, sweeping):
    """Promise 1. Seen to fail with a keeper that does not ask for the confirmation."""
    await use(store)
    before = await whole(store, key())
    await sweeping.until_idle(PURGE + 999 * DAY)
    await store.confirm_retention(parse_policy("[default]\nidle = '1s'\n"), by="op")
    await sweeping.until_idle(PURGE + 999 * DAY)
    assert await whole(store, key()) == before
    assert await levels(store) == {("app", Status.USED): 1}
    assert sweeping.kinds == []


async def test_a_confirmed_policy_archives_and_purges(store, sweeping):
    """Without any check_at before: the scan finds what was used when there was no policy."""
    await use(store)
    await create(store, "waits", now=LATER)
    await sweeping.confirm()
    await sweeping.until_idle(LATER - HOUR)
    assert await status(store) is Status.USED
    await sweeping.until_idle(LATER)
    assert await status(store) is Status.ARCHIVED
    await sweeping.until_idle(PURGE - HOUR)
    assert await status(store) is Status.ARCHIVED
    await sweeping.until_idle(PURGE)
    assert await store.at(PURGE).lifecycle(key()) is None
    assert sweeping.kinds == [ChangeKind.ARCHIVING, ChangeKind.ARCHIVED, ChangeKind.PURGED]


async def test_a_message_moves_the_deadline_though_nothing_wrote_it(store, sweeping):
    """check_at moves only when a sweep meets it."""
    revision = await use(store)
    await sweeping.confirm()
    await sweeping.until_idle(T0 + HOUR)
    later = T0 + 20 * DAY
    await store.at(later).append(key(), message("m2", at=later), revision)
    await sweeping.until_idle(LATER)
    assert await status(store) is Status.USED
    await sweeping.until_idle(later + 30 * DAY)
    assert await status(store) is Status.ARCHIVED


async def test_a_shorter_policy_reaches_sessions_that_were_looked_at(store, sweeping, tmp_path):
    await use(store)
    await sweeping.confirm()
    await sweeping.until_idle(T0 + HOUR)
    shorter = Sweeping(store, tmp_path, "[default]\nidle = '2d'\n")
    await sweeping.until_idle(T0 + 3 * DAY)
    assert await status(store) is Status.USED
    await shorter.confirm()
    await shorter.until_idle(T0 + 3 * DAY)
    assert await status(store) is Status.ARCHIVED


async def test_a_restored_session_is_looked_at_again(store, sweeping):
    await use(store)
    await sweeping.confirm()
    await sweeping.until_idle(LATER)
    await store.at(LATER + DAY).resurrect(key(), cause=Cause.REQUEST)
    await sweeping.until_idle(LATER + 30 * DAY)
    assert await status(store) is Status.USED
    await sweeping.until_idle(LATER + 31 * DAY)
    assert await status(store) is Status.ARCHIVED


async def test_the_sessions_of_stock_adk_are_found(store, stock, sweeping):
    from google.adk.events.event import Event
    from google.genai.types import Content, Part

    for name in ("empty", "used"):
        session = await stock.create_session(app_name="app", user_id="ann", session_id=name)
    content = Content(role="user", parts=[Part(text="hello")])
    await stock.append_event(session, Event(author="user", content=content))
    await sweeping.confirm()
    await sweeping.until_idle(LATER)
    assert await status(store, "used") is Status.ARCHIVED
    assert await status(store, "empty") is Status.ORPHAN


async def test_a_user_keeps_as_many_sessions_as_the_policy_says(store, tmp_path):
    """It is looked at when a session becomes used."""
    sweeping = Sweeping(store, tmp_path, "[default]\nper_user = 2\n")
    await sweeping.confirm()
    for number in range(4):
        await use(store, f"s{number}", now=T0 + number * HOUR)
        await sweeping.until_idle(T0 + number * HOUR + timedelta(minutes=1))
    found = [await status(store, f"s{number}") for number in range(4)]
    assert found == [Status.ARCHIVED] * 2 + [Status.USED] * 2


async def test_while_a_brake_is_set_nothing_is_archived_or_purged(store, sweeping):
    """Seen to fail with a sweep that does not ask for the brake."""
    await use(store)
    await sweeping.confirm()
    await store.set_brake(Brake(BrakeReason.CLOCK, LATER, LATER + HOUR, jump=HOUR))
    await sweeping.until_idle(LATER)
    assert await status(store) is Status.USED
    await store.release_brake(since=LATER)
    await sweeping.until_idle(LATER)
    assert await status(store) is Status.ARCHIVED


async def test_a_purge_of_too_large_a_share_waits_for_an_operator(store, tmp_path):
    """Seen to fail without a limit."""
    sweeping = Sweeping(store, tmp_path, sessions=2)
    for number in range(6):
        await use(store, f"s{number}")
    await sweeping.confirm()
    await sweeping.until_idle(LATER)
    assert await levels(store) == {("app", Status.ARCHIVED): 6}
    await sweeping.until_idle(PURGE + HOUR)
    assert await levels(store) == {("app", Status.ARCHIVED): 6}
    brake = await store.brake()
    assert (brake.reason, brake.sessions) == (BrakeReason.SHARE, 4)
    await store.at(PURGE + HOUR).release_brake(since=brake.since)
    await sweeping.until_idle(PURGE + HOUR)
    assert await levels(store) == {}


async def test_a_jump_of_the_clock_takes_nothing_before_the_sweeper_has_seen_it(store, tmp_path):
    sweeping = Sweeping(store, tmp_path)
    await use(store)
    await sweeping.confirm()
    keeper = sweeping.at(T0)
    await keeper.step()
    keeper._store = sweeping.at(LATER)._store
    keeper._sweep, keeper._archive = sweeping.at(LATER)._sweep, sweeping.at(LATER)._archive
    await keeper.step()
    assert await status(store) is Status.USED


async def test_clean_up_switched_off_stops_retention(open_store, tmp_path):
    store = await open_store(enforced=False)
    sweeping = Sweeping(store, tmp_path)
    await use(store)
    await sweeping.confirm()
    await sweeping.until_idle(PURGE)
    assert await store.at(PURGE).read(key())
    assert POLICY.digest == sweeping.policy.digest
