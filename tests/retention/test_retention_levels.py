"""What retention concerns, in numbers, and whether a policy is in force."""

import os
from datetime import timedelta

import pytest
from archiving import DAY, LATER, POLICY, archive

from backends import T0, TICK, key, use
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status
from lapse.overview.store import Query
from lapse.retention.levels import RetentionLevels
from lapse.retention.state import read_state

PURGE = LATER + 100 * DAY
TEXT = '[default]\nidle = "30d"\narchive = "100d"\n'

WEEK = timedelta(days=7)


async def levels(store, now):
    return await store.at(now).retention_levels()


async def test_the_levels_count_what_is_archived_pinned_and_on_hold(store):
    nothing = RetentionLevels(T0, 0, 0, 0, 0, None, is_braked=False)
    assert await levels(store, T0) == nothing
    for name in ("s1", "s2", "s3"):
        await use(store, name)
    await archive(store, key("s1"))
    await store.pin(key("s2"))
    await store.put_on_hold(SessionKey("", "bob", ""), reason="case", by="op")
    found = await levels(store, LATER)
    assert (found.archived, found.pinned, found.holds) == (1, 1, 1)
    assert [one.key for one in await store.pinned(10)] == [key("s2")]
    assert await store.pinned(0) == []
    await store.at(LATER).resurrect(key("s1"), cause=Cause.REQUEST)
    assert (await levels(store, LATER)).archived == 0


async def test_what_waits_for_a_sweep_is_due_from_its_very_moment_on(store):
    """Seen to fail with `<` for `<=`."""
    await use(store)
    await archive(store, key())
    assert (await levels(store, PURGE - TICK)).due == 0
    assert (await levels(store, PURGE)).due == 1
    late = await levels(store, PURGE + DAY)
    assert (late.due, late.due_since, late.overdue) == (1, PURGE, DAY)


@pytest.mark.parametrize("exempt", ["pinned", "on hold", "kept for good"])
async def test_what_no_sweep_purges_is_not_due(store, exempt):
    """Seen to fail with every archived session as due."""
    await use(store)
    policy = POLICY
    if exempt == "kept for good":
        policy = type(POLICY)(type(POLICY.default)(idle=POLICY.default.idle))
    await archive(store, key(), policy=policy)
    if exempt == "pinned":
        await store.at(LATER).pin(key())
    if exempt == "on hold":
        await store.at(LATER).put_on_hold(key(), reason="case", by="op")
    found = await levels(store, PURGE + DAY)
    assert (found.archived, found.due, found.overdue) == (1, 0, timedelta(0))


async def test_a_used_session_that_was_to_be_looked_at_is_due(store):
    """First to announce its archive, a week before."""
    await use(store)
    await archive(store, key(), now=T0 + DAY)  # too early: it is looked at when its time comes
    assert (await levels(store, LATER - WEEK - TICK)).due == 0
    assert (await levels(store, LATER - WEEK)).due == 1


async def test_a_policy_is_in_force_while_its_file_says_what_was_confirmed(store, tmp_path):
    """Seen to fail with a confirmation of any policy."""
    assert (await read_state(store, None)).file is None
    file = tmp_path / "policy.toml"
    file.write_text(TEXT)
    hour_ago = file.stat().st_mtime - 3600
    os.utime(file, (hour_ago, hour_ago))
    state = await read_state(store, file)
    assert (state.policy, state.is_in_force) == (POLICY, False)
    assert timedelta(hours=1) <= state.unconfirmed_for < timedelta(hours=2)
    await store.confirm_retention(POLICY, by="ann")
    state = await read_state(store, file)
    assert (state.is_in_force, state.unconfirmed_for) == (True, timedelta(0))
    file.write_text("# a comment\n" + TEXT)
    assert (await read_state(store, file)).is_in_force
    file.write_text(TEXT.replace("30d", "31d"))
    assert not (await read_state(store, file)).is_in_force


async def test_a_policy_with_faults_is_told_with_all_of_them(store, tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text('[default]\nidle = 3\nage = "x"\n')
    state = await read_state(store, file)
    assert (state.policy, state.is_in_force, len(state.problems)) == (None, False, 2)
    gone = await read_state(store, tmp_path / "gone.toml")
    assert gone.problems == ("it cannot be read: No such file or directory",)


async def test_nothing_is_overdue_while_nothing_may_be_taken(store, tmp_path):
    """Seen to fail with the overdue time of the levels."""
    file = tmp_path / "policy.toml"
    file.write_text(TEXT)
    await use(store)
    await archive(store, key())
    late = store.at(PURGE + DAY)
    assert (await read_state(late, file)).overdue == timedelta(0)
    await late.confirm_retention(POLICY, by="ann")
    assert (await read_state(late, file)).overdue == DAY
    await late.brake_purge(PURGE + DAY, 7)
    assert (await read_state(late, file)).overdue == timedelta(0)


async def test_operators_find_archived_sessions_by_page(store):
    names = [f"s{number}" for number in range(5)]
    for name in names:
        await use(store, name)
    await archive(store, *map(key, names[:4]))
    found, after = [], None
    while True:
        query = Query(Status.ARCHIVED, size=2, after=after)
        page = await store.at(LATER).find(query)
        found += [one.key.session_id for one in page.records]
        after = page.next
        if after is None:
            break
    assert found == names[:4]
    of_other = await store.at(LATER).find(Query(Status.ARCHIVED, "other"))
    assert of_other.records == []
