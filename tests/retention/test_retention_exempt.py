"""What retention leaves alone: running, awaiting, pinned, held, and what a user may keep."""

from dataclasses import replace
from datetime import timedelta

import pytest
from archiving import DAY, LATER, archive

from backends import DUE, HOUR, NO_STATE, T0, TICK, TTL, create, key, message, use, words
from lapse.core.errors import InvalidValueError, NoSuchSessionError, WrongStatusError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status
from lapse.retention.archive import Looked
from lapse.retention.policy import parse_policy
from lapse.retention.rules import Limits, Standing, next_check
from lapse.runs.store import RunStatus
from lapse.store.records import EventRecord
from races import at_once, fail_on_others

EXEMPT = Looked(later=1)
TAKEN = Looked(archived=1)
MINUTE = timedelta(minutes=1)
PURGE = LATER + 100 * DAY
WAYS = {
    "a session": key(),
    "a user in an app": SessionKey("app", "ann", ""),
    "a user": SessionKey("", "ann", ""),
}


def confirmation(event_id="c1", at=T0):
    """Return the agent's event that asks for the confirmation of a tool's call."""
    asked = words(event_id, at=at)
    data = asked.record.data.replace(
        '"artifact_delta": {}', '"requested_tool_confirmations": {"t1": {}}'
    )
    return replace(asked, record=EventRecord(event_id, "e", at, data))


async def taken(store, *, now=LATER, **limits):
    policy = parse_policy(
        "[default]\nidle = '30d'\n"
        + "".join(f"{name} = {value}\n" for name, value in limits.items())
    )
    return (await archive(store, key(), now=now, policy=policy)).value


async def test_a_session_with_a_run_in_flight_is_exempt(store):
    """Seen to fail with a policy that heeds no exemption."""
    await use(store)
    await store.at(LATER).begin_run(key(), "r1", max_per_user=5)
    assert await taken(store) == EXEMPT
    await store.at(LATER).end_run("r1", RunStatus.DONE)
    assert await taken(store) == TAKEN


async def test_a_run_that_died_exempts_nothing(store):
    await use(store)
    await store.at(LATER - MINUTE).begin_run(key(), "r1", max_per_user=5)
    assert await taken(store) == TAKEN


async def test_a_session_that_awaits_an_answer_is_exempt_for_as_long_as_the_policy_says(store):
    """Seen to fail with `<=` in `_is_exempt`."""
    revision = await use(store)
    await store.at(T0).append(key(), confirmation(at=T0 + MINUTE), revision)
    late = T0 + 40 * DAY + MINUTE
    assert await taken(store, now=late) == EXEMPT
    assert await taken(store, now=late - TICK, awaiting="'40d'") == EXEMPT
    assert await taken(store, now=late, awaiting="'40d'") == TAKEN


async def test_an_answer_ends_the_waiting(store):
    revision = await use(store)
    asked = await store.at(T0).append(key(), confirmation(at=T0 + MINUTE), revision)
    answer = message("a1", at=T0 + 2 * MINUTE)
    await store.at(T0).append(key(), answer, asked.value.revision)
    assert await taken(store, now=LATER + MINUTE) == EXEMPT
    assert await taken(store, now=LATER + 2 * MINUTE) == TAKEN


async def test_a_pinned_session_is_exempt_until_it_is_unpinned(store):
    await use(store)
    pinned = await store.at(T0).pin(key(), by="ann")
    assert pinned.value.pinned
    assert (await store.at(T0 + HOUR).pin(key(), by="ann")).value.pinned
    assert await taken(store) == EXEMPT
    assert not (await store.unpin(key(), by="ann")).value.pinned
    await store.unpin(key(), by="ann")
    assert await taken(store) == TAKEN
    acts = [(act.by, act.action) for act in await store.acts_on(key(), newest=9)]
    assert acts == [("ann", "unpinned"), ("ann", "pinned")]


async def test_only_a_session_with_a_message_can_be_pinned(store):
    await create(store)
    with pytest.raises(WrongStatusError, match="waiting"):
        await store.at(T0).pin(key())
    with pytest.raises(NoSuchSessionError):
        await store.pin(key("other"))
    with pytest.raises(NoSuchSessionError):
        await store.unpin(key("other"))


async def test_a_pinned_archived_session_is_not_purged(store):
    await use(store)
    await archive(store, key())
    await store.at(LATER).pin(key())
    assert (await store.at(PURGE).purge_archived(10)).value == 0
    await store.at(PURGE).unpin(key())
    assert (await store.at(PURGE).purge_archived(10)).value == 1


async def test_a_session_of_stock_adk_can_be_pinned(store, stock):
    from google.adk.events.event import Event
    from google.genai.types import Content, Part

    session = await stock.create_session(app_name="app", user_id="ann", session_id="s1")
    with pytest.raises(WrongStatusError, match="orphan"):
        await store.pin(key())
    content = Content(role="user", parts=[Part(text="hello")])
    await stock.append_event(session, Event(author="user", content=content))
    assert (await store.pin(key())).value.pinned
    assert (await store.lifecycle(key())).status is Status.USED


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_on_hold_is_neither_archived_nor_purged_nor_deleted(store, way):
    """Seen to fail with a policy that heeds no exemption."""
    await use(store, "old")
    await archive(store, key("old"))
    await use(store)
    scope = key() if way == "a session" else WAYS[way]
    held = WAYS["a user"] if way == "a session" else scope
    assert await store.put_on_hold(scope, reason="case 7", by="op")
    assert not await store.put_on_hold(scope, reason="case 7", by="op")
    assert await taken(store) == EXEMPT
    with pytest.raises(WrongStatusError, match="on hold"):
        await store.delete(key(), by="ann")
    await store.put_on_hold(held, reason="all", by="op")
    assert (await store.at(PURGE).purge_archived(10)).value == 0
    with pytest.raises(WrongStatusError, match="on hold"):
        await store.delete(key("old"))
    assert await store.at(LATER).read(key())
    for one in {scope, held}:
        assert await store.release_hold(one, by="op")
        assert not await store.release_hold(one, by="op")
    assert (await store.at(PURGE).purge_archived(10)).value == 1
    await store.delete(key())
    assert await store.lifecycle(key()) is None


async def test_a_hold_on_a_user_holds_the_sessions_to_come(store):
    await store.put_on_hold(WAYS["a user"], reason="case 7", by="op")
    await use(store)
    assert await taken(store) == EXEMPT
    other = key(user="bob")
    revision = await create(store, other)
    await store.at(T0).append(other, message(), revision)
    assert (await archive(store, other)).value == TAKEN


async def test_a_held_session_that_nobody_used_is_not_purged_and_its_id_stays_taken(store):
    """Seen to fail with a purge that does not look at holds."""
    await create(store)
    await store.at(DUE).expire_due(10)
    await store.put_on_hold(key(), reason="case 7", by="op")
    late = T0 + 9 * DAY
    assert (await store.at(late).purge_due(10)).value == 0
    assert await store.at(late).time_to_next() is None
    assert (await store.at(late).dues(most=10)).purge == 0
    with pytest.raises(Exception, match="exists already"):
        await store.at(late).create(key(), state=NO_STATE, ttl=TTL, metadata={})
    with pytest.raises(WrongStatusError):
        await store.at(late).delete(key())
    await store.release_hold(key(), by="op")
    assert (await store.at(late).purge_due(10)).value == 1


@pytest.mark.parametrize(
    ("scope", "holds"),
    [(key("other"), False), (key(user="bob"), False), (key(), True), (WAYS["a user"], True)],
    ids=["another session", "another user's", "the session", "its user"],
)
async def test_each_change_of_a_session_tells_whether_it_is_on_hold(store, scope, holds):
    """Seen to fail with a hold on one session that counts for all of its user."""
    await create(store)
    await store.put_on_hold(scope, reason="case 7", by="op")
    at = store.at(T0)
    told = [
        await at.lifecycle(key()),
        (await at.extend(key())).value,
        (await at.amend(key(), metadata={"a": 1})).value,
    ]
    await store.at(DUE).expire_due(10)
    told.append((await store.at(DUE).resurrect(key(), cause=Cause.REQUEST)).value)
    assert [one.on_hold for one in told] == [holds] * 4


async def test_a_hold_on_another_session_of_the_user_holds_nothing_up(store):
    await store.put_on_hold(key("other"), reason="case 7", by="op")
    for name in ("s1", "s2"):
        await create(store, name)
    await store.at(DUE).expire_due(10)
    late = T0 + 9 * DAY
    await store.at(late).create(key("s2"), state=NO_STATE, ttl=TTL, metadata={})
    assert (await store.at(late).purge_due(10)).value == 1
    await use(store, "s3")
    for name in ("s2", "s3"):
        await store.at(late).delete(key(name))
        assert await store.at(late).lifecycle(key(name)) is None


async def test_holds_are_listed_and_audited_without_the_users_name(store):
    await store.at(T0).put_on_hold(key(), reason=" why ", by="op")
    await store.at(T0 + HOUR).put_on_hold(WAYS["a user"], reason="all", by="op")
    await store.at(T0 + HOUR).put_on_hold(SessionKey("", "bob", ""), reason="all", by="op")
    found = await store.holds(user_id="ann")
    assert [(one.key, one.reason, one.since) for one in found] == [
        (key(), "why", T0),
        (WAYS["a user"], "all", T0 + HOUR),
    ]
    assert len(await store.holds()) == 3
    acts = await store.acts(newest=9)
    assert [act.action for act in acts] == ["held"] * 3
    assert not any("ann" in str(act.detail) for act in acts)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "a\nb"])
async def test_a_hold_has_a_reason(store, reason):
    with pytest.raises(InvalidValueError, match="reason"):
        await store.put_on_hold(key(), reason=reason, by="op")


async def test_of_a_user_those_sessions_stay_that_were_used_last(store):
    """Pinned and held ones do not count. Seen to fail with a rank that counts them."""
    policy = parse_policy("[default]\nper_user = 2\n")
    names = ["s0", "s1", "s2", "s3", "pinned", "held"]
    for number, name in enumerate(names):
        await use(store, name, now=T0 + number * HOUR)
    await store.pin(key("pinned"))
    await store.put_on_hold(key("held"), reason="case", by="op")
    keys = [key(name) for name in names]
    now = T0 + DAY
    done = await archive(store, *keys, now=now, policy=policy)
    assert {change.record.key.session_id for change in done.changes} == {"s0", "s1"}
    assert (await archive(store, *keys, now=now, policy=policy)).value.archived == 0
    await store.at(now).resurrect(key("s0"), cause=Cause.REQUEST)
    done = await archive(store, *keys, now=now, policy=policy)
    assert {change.record.key.session_id for change in done.changes} == {"s2"}


def test_what_is_exempt_is_looked_at_again_soon_enough():
    now = T0 + DAY
    exempt = Standing(now, T0, T0, is_exempt=True)
    assert next_check(Limits(idle=HOUR), exempt) == now + HOUR
    assert next_check(Limits(idle=4 * TICK), exempt) == now + timedelta(seconds=1)
    assert next_check(Limits(idle=9 * HOUR), exempt) == now + HOUR
    assert next_check(Limits(), exempt) is None


@pytest.mark.parametrize("what", ["pin", "hold", "hold of the user"])
async def test_a_pin_or_a_hold_comes_before_the_archive_or_after_it(two_stores, what):
    """Whichever commits first: what was exempt before an archive or a purge began is not taken."""
    one, two = two_stores
    for number in range(6):
        names = [f"{number}-{place}" for place in range(6)]
        for name in names:
            await use(one, name)
        user = WAYS["a user"]
        if what == "pin":
            exempting = [one.pin(key(name)) for name in names]
        elif what == "hold":
            exempting = [one.put_on_hold(key(name), reason="case", by="op") for name in names]
        else:
            exempting = [one.put_on_hold(user, reason="case", by="op")]
        keys = [key(name) for name in names]
        archives = [archive(two, found) for found in keys]
        fail_on_others(await at_once(number, *exempting, *archives))
        # From now on everything is exempt: nothing more is archived, purged or, on hold, deleted.
        statuses = [(await one.at(LATER).lifecycle(found)).status for found in keys]
        assert (await archive(two, *keys, now=PURGE)).value.archived == 0
        assert (await two.at(PURGE + 900 * DAY).purge_archived(99)).value == 0
        assert [(await one.at(LATER).lifecycle(found)).status for found in keys] == statuses
        await one.release_hold(user, by="op")
        for found in keys:
            await one.release_hold(found, by="op")
            await one.delete(found)


async def test_a_hold_comes_before_a_delete_or_after_it(two_stores):
    """Seen to fail on PostgreSQL with a hold that excludes no writers."""
    one, two = two_stores
    for number in range(8):
        await use(one, f"{number}")
        held = key(f"{number}")
        done = await at_once(
            number, one.put_on_hold(held, reason="case", by="op"), two.delete(held)
        )
        fail_on_others(done, WrongStatusError)
        was_refused = isinstance(done[1], WrongStatusError)
        assert (await one.at(T0).read(held) is not None) == was_refused
