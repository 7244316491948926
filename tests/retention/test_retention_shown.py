"""What is on hold says so in every record that somebody reads."""

import pytest
from archiving import LATER, archive

from backends import DUE, T0, TICK, create, key, use
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status
from lapse.overview.listing import ListStore
from lapse.overview.store import Query

HELD = {
    "a session": key(),
    "a user in an app": SessionKey("app", "ann", ""),
    "a user": SessionKey("", "ann", ""),
}
NOT_HELD = (key("s1", user="bob"), key("s1", app="other"), SessionKey("app", "ann", "s2"))


async def hold(store, held):
    assert await store.at(T0).put_on_hold(held, reason="case 7", by="op")


async def shown(store, now):
    """Return what each way to read says of the session, by the name of the way."""
    at, one = store.at(now), key()
    (listed,) = await ListStore(at).list_with_records(*one[:2], list(Status))
    snapshot = await at.records([one])
    (found,) = (await at.find(Query(user_id="ann"))).records
    return {
        "lifecycle": (await at.lifecycle(one)).on_hold,
        "a list": listed.lifecycle.on_hold,
        "a notice": snapshot.records[one].on_hold,
        "an operators' list": found.on_hold,
    }


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
@pytest.mark.parametrize("status", ["waiting", "expired", "used", "archived"])
async def test_every_way_to_read_a_session_tells_that_it_is_on_hold(store, held, status):
    """Seen to fail without `is_held` in the statements of notices and of operators' lists."""
    now = T0
    if status in {"waiting", "expired"}:
        await create(store)
        now = DUE if status == "expired" else T0
    else:
        await use(store)
    if status == "archived":
        await archive(store, key())
        now = LATER
    assert not any((await shown(store, now)).values())
    await hold(store, held)
    assert (await store.at(now).lifecycle(key())).status == status
    told = await shown(store, now)
    assert all(told.values()), told
    await store.release_hold(held, by="op")
    assert not any((await shown(store, now)).values())


@pytest.mark.parametrize("held", NOT_HELD, ids=str)
async def test_a_hold_on_another_session_is_not_told(store, held):
    """Seen to fail with a hold that is found by its user alone."""
    await use(store)
    await hold(store, held)
    told = await shown(store, T0)
    assert not any(told.values()), told


async def test_an_operator_who_changes_what_is_on_hold_is_told_so(store):
    """Seen to fail with the record of the change as the answer."""
    await create(store)
    await hold(store, key())
    at = store.at(T0 + TICK)
    answers = [
        await at.amend(key(), metadata={"a": 1}),
        await at.extend(key()),
        await at.expire(key()),
        await at.resurrect(key(), cause=Cause.REQUEST),
    ]
    assert [one.value.status for one in answers] == ["waiting", "waiting", "expired", "waiting"]
    assert all(one.value.on_hold for one in answers)


async def test_an_owner_who_pins_or_restores_what_is_on_hold_is_told_so(store):
    await use(store)
    await archive(store, key())
    await hold(store, key())
    at = store.at(LATER)
    for change in (at.pin, at.pin, at.unpin):
        assert (await change(key())).value.on_hold
    restored = (await at.resurrect(key(), cause=Cause.REQUEST)).value
    assert (restored.status, restored.on_hold) == (Status.USED, True)
