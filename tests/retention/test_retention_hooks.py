"""What is awaited beside archive and purge: in order, within a time, each session for itself."""

import asyncio
import logging
from datetime import timedelta
from functools import partial

import pytest
from archiving import LATER
from google.adk.memory.in_memory_memory_service import InMemoryMemoryService
from keeping import SECRET, archived, exists, keep, remembered
from test_retention_sweep import PURGE, TEXT

from backends import HOUR, T0, key, use
from lapse import RetentionHooks, SaveToMemory
from lapse.adk.purges import steps_before
from lapse.core.errors import InvalidValueError
from lapse.core.feed import Feed
from lapse.core.lifecycle import Cause, ChangeKind
from lapse.retention.hooks import HookCalls, Outcome, hooks_named
from lapse.retention.keeper import RetentionKeeper
from lapse.retention.policy import parse_policy
from lapse.retention.purging import AT_ONCE, FIRST_PAUSE, Beside
from lapse.retention.settings import PurgedMemory
from lapse.sweep.rules import Brake, BrakeReason

SOON = timedelta(milliseconds=50)
PATIENT = timedelta(seconds=30)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def keeping(store, tmp_path):
    return partial(keep, store, tmp_path)


async def test_before_purge_gets_the_session_whole_and_the_purge_comes_after(store, keeping):
    """Seen to fail with a purge that does not wait."""
    seen = []

    async def before_purge(session):
        seen.append(session)
        assert await exists(store)

    keeper = await keeping(RetentionHooks(before_purge=before_purge))
    await archived(store, "s1")
    await keeper.step(PURGE - HOUR)
    assert seen == []
    await keeper.step(PURGE)
    (session,) = seen
    assert (session.app_name, session.user_id, session.id) == key()
    assert session.state == {"own": "s1"}
    assert [event.content.parts[0].text for event in session.events] == [SECRET]
    assert session.events[0].id == "m1"
    assert session.last_update_time == T0.timestamp()
    assert not await exists(store)
    assert keeper.kinds == [ChangeKind.PURGED]
    assert keeper.outcomes == {("before_purge", Outcome.DONE): 1}


async def test_one_that_fails_or_hangs_puts_off_its_own_purge_alone(store, keeping, caplog):
    """With growing pauses. Seen to fail with a batch that ends at the first failure."""
    failing, calls = {"fails", "hangs", "sticks"}, []

    async def before_purge(session):
        calls.append(session.id)
        if session.id not in failing:
            return
        if session.id == "fails":
            raise ValueError(SECRET)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if session.id == "hangs" or not failing:
                    raise

    names = ["fails", "goes", "hangs", "sticks", "too"]
    keeper = await keeping(RetentionHooks(before_purge=before_purge, timeout=SOON))
    await archived(store, *names)
    with caplog.at_level(logging.INFO):
        async with keeper.at(PURGE) as hooked:
            while hooked._tasks:
                await asyncio.wait(hooked._tasks)
            assert {name for name in names if await exists(store, name)} == failing
            assert hooked.calls.outcomes == {
                ("before_purge", Outcome.DONE): 2,
                ("before_purge", Outcome.FAILED): 1,
                ("before_purge", Outcome.LATE): 2,
            }
            # They are due again after a pause, which the store knows: any process keeps it.
            assert await store.at(PURGE + FIRST_PAUSE - SOON).take_to_purge(9, lease=HOUR) == []
            later = PURGE + FIRST_PAUSE
            assert len(await store.at(later).take_to_purge(9, lease=FIRST_PAUSE)) == 3
            assert hooked._pause_of(key("fails")) == 2 * FIRST_PAUSE
            failing.clear()
            for task in list(hooked.calls._strays):
                task.cancel()
    assert SECRET not in caplog.text
    await keeper.step(later + FIRST_PAUSE)
    assert not any([await exists(store, name) for name in names])
    assert len(calls) == 8


async def test_a_call_that_is_killed_is_made_again_after_its_time(store, keeping):
    """Whatever becomes of the process. Seen to fail with a session that stays taken."""
    calls, called = [], asyncio.Event()

    async def before_purge(session):
        calls.append(session.id)
        called.set()
        await asyncio.sleep(3600)

    hooks = RetentionHooks(before_purge=before_purge, timeout=PATIENT)
    keeper = await keeping(hooks)
    await archived(store, "s1")
    async with keeper.at(PURGE) as hooked:
        await called.wait()
        (task,) = hooked._tasks
    assert task.cancelled()
    assert await exists(store)
    async with keeper.at(PURGE + timedelta(seconds=1)):
        pass
    assert calls == ["s1"]
    called.clear()
    async with keeper.at(PURGE + PATIENT + MINUTE):
        await called.wait()


@pytest.mark.parametrize("how", ["restored", "used and archived again", "pinned", "held", "braked"])
async def test_what_may_not_go_any_more_stays_though_its_hook_was_called(store, keeping, how):
    """Seen to fail with a purge that asks for the key alone, for each of these."""

    async def before_purge(_):
        now = store.at(PURGE)
        match how:
            case "restored":
                await now.resurrect(key(), cause=Cause.REQUEST)
            case "used and archived again":
                # It is due to be purged again, with what its hook has not seen.
                await store.at(PURGE - HOUR).resurrect(key(), cause=Cause.REQUEST)
                policy = parse_policy('[default]\nidle = "1s"\narchive = "1s"\n')
                done = await store.at(PURGE - MINUTE).archive_sessions([key()], policy)
                assert done.value.archived == 1
            case "pinned":
                await now.pin(key())
            case "held":
                await now.put_on_hold(key(), reason="a case", by="op")
            case "braked":
                await now.set_brake(Brake(BrakeReason.CLOCK, PURGE, PURGE + HOUR, jump=HOUR))

    keeper = await keeping(RetentionHooks(before_purge=before_purge))
    await archived(store, "s1")
    await keeper.step(PURGE)
    assert keeper.outcomes == {("before_purge", Outcome.DONE): 1}
    assert await exists(store)
    assert keeper.kinds == []


async def test_two_keepers_call_for_a_session_once_at_a_time(store, keeping):
    calls = []

    async def before_purge(session):
        calls.append(session.id)

    keeper = await keeping(RetentionHooks(before_purge=before_purge))
    names = [f"s{number}" for number in range(12)]
    await archived(store, *names)
    await asyncio.gather(keeper.step(PURGE), keeper.step(PURGE))
    assert sorted(calls) == sorted(names)
    assert keeper.kinds == [ChangeKind.PURGED] * 12


async def test_on_archive_gets_each_record_and_holds_nothing_up(store, keeping):
    told = []

    async def on_archive(record):
        told.append(record)
        if record.key == key("s2"):
            raise ValueError(SECRET)

    keeper = await keeping(RetentionHooks(on_archive=on_archive))
    for number in range(4):
        await use(store, f"s{number}")
    await keeper.step(LATER)
    assert {record.key for record in told} == {key(f"s{number}") for number in range(4)}
    assert {record.archived_at for record in told} == {LATER}
    assert keeper.outcomes == {("on_archive", Outcome.DONE): 3, ("on_archive", Outcome.FAILED): 1}
    await keeper.step(LATER)
    assert len(told) == 4


@pytest.mark.parametrize("how", ["by the setting", "by the hook"])
async def test_a_session_is_saved_to_memory_before_its_purge(store, keeping, how):
    """The hook wins over the default, by which memory is forgotten.

    Seen to fail with a default that wins.
    """
    service = InMemoryMemoryService()
    if how == "by the setting":
        keeper = await keeping(RetentionHooks(), choice=PurgedMemory.SAVE, memory=service)
    else:
        hooks = RetentionHooks(before_purge=SaveToMemory(service))
        keeper = await keeping(hooks, choice=PurgedMemory.FORGET, memory=service)
    await archived(store, "s1")
    assert await remembered(service) == []
    await keeper.step(PURGE)
    assert not await exists(store)
    assert await remembered(service) == [SECRET]


async def test_nothing_is_purged_that_cannot_be_saved(store, keeping):
    keeper = await keeping(RetentionHooks(), choice=PurgedMemory.SAVE)
    await archived(store, "s1")
    await keeper.step(PURGE)
    assert await exists(store)
    assert keeper.outcomes == {("save_to_memory", Outcome.FAILED): 1}


def test_hooks_are_checked_when_they_are_made():
    with pytest.raises(InvalidValueError, match="above 0"):
        RetentionHooks(timeout=timedelta(0))
    with pytest.raises(InvalidValueError, match="before_purge"):
        RetentionHooks(before_purge=7)
    for text in ("os", "os:path", "no_such_module:X", ":", "test_retention_hooks:"):
        with pytest.raises(InvalidValueError, match="LAPSE_RETENTION_HOOKS"):
            hooks_named(text)


async def test_hooks_that_never_end_are_not_called_without_a_bound(monkeypatch):
    monkeypatch.setattr("lapse.retention.hooks._MOST_STRAYS", 2)
    calls, ended = HookCalls(), asyncio.Event()

    async def hook():
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue

    for _ in range(3):
        assert not await calls.call("before_purge", key(), hook, SOON)
    assert calls.outcomes == {
        ("before_purge", Outcome.LATE): 2,
        ("before_purge", Outcome.DROPPED): 1,
    }
    ended.set()
    await calls.leave()
    assert await calls.call("before_purge", key(), hook, SOON)


async def test_a_running_keeper_calls_for_more_sessions_than_it_takes_at_once(store, tmp_path):
    """Also after it was stopped and started again. Seen to fail with a place that stays taken."""
    await store.at(T0).confirm_retention(parse_policy(TEXT), by="op")
    (tmp_path / "policy.toml").write_text(TEXT)
    await archived(store, *(f"s{number}" for number in range(2 * AT_ONCE + 3)))
    begun, others, all_called = asyncio.Event(), set(), asyncio.Event()

    async def before_purge(session):
        if not is_second:
            begun.set()
            await asyncio.sleep(3600)
        others.add(session.id)
        if len(others) == AT_ONCE + 3:
            all_called.set()

    hooks = RetentionHooks(before_purge=before_purge, timeout=PATIENT)
    steps = steps_before(hooks, PurgedMemory.KEEP, None)
    beside = Beside(hooks, lambda: steps)
    database = store.at(PURGE).database
    keeper = RetentionKeeper(database, Feed(), tmp_path / "policy.toml", beside=beside)
    is_second = False
    async with keeper.running():
        await begun.wait()
    # Those that it had taken are somebody's until their time runs out.
    is_second = True
    async with keeper.running():
        await all_called.wait()
