"""A message that the service will never take: nobody stores it, whoever finishes its hand-over."""

from datetime import timedelta

import pytest
from killing import Killed
from worlds import LEASE_OVER

from adk_builders import APP, USER, create_session, get_session, message_event
from adk_builders import state_event as note_event
from backends import NO_STATE, T0, TTL, message
from lapse.conversations.rules import Token, Where, new_fence
from lapse.core.errors import OutcomeUnknownError, StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import ChangeKind, Status
from odd_service import Fault, OddService


class Ends:
    """Ends a process before or after the first step of a name; nothing of it runs any more."""

    def __init__(self, name, *, done):
        self._name, self._done = name, done
        self._is_over = False

    async def __call__(self, name, do):
        if self._is_over:
            raise Killed
        if name != self._name:
            return await do()
        self._is_over = True
        if self._done:
            await do()
        raise Killed


async def stored(world, session_id):
    found = await world.inner.get_session(app_name=APP, user_id=USER, session_id=session_id)
    return None if found is None else [event.id for event in found.events]


STEPS = [
    ("note_refusal", True),
    ("get", False),
    ("get", True),
    ("delete", False),
    ("delete", True),
    ("take_back", False),
    ("take_back", True),
]


@pytest.mark.parametrize(("step", "done"), STEPS)
async def test_a_refusal_stands_whatever_step_its_process_ends_at(worlds, step, done):
    """Seen to fail where only the last step noted the refusal, wherever a process ended before."""
    odd = OddService(worlds.inner)
    first = worlds.process(odd)
    session = await create_session(first, session_id="s1", state={"k": 1})
    await first.append_event(session, note_event({"k": 2}, id="held"))
    odd.arm("append", None, Fault.REFUSED)
    ends, asked = Ends(step, done=done), []

    async def of_lobby(name, do):
        asked.append(name)
        return await ends(name, do)

    async def of_service(name, do):
        # What is read before the refusal is noted, is read to see whether the message is stored.
        is_noted = "note_refusal" in asked
        return await (ends(name, do) if is_noted else do())

    first.lobby.doing, odd.around = of_lobby, of_service
    with pytest.raises(Killed):
        await first.append_event(session, message_event("never", id="refused"))
    assert "refused" not in (await stored(worlds, "s1") or [])

    worlds.pass_time()
    second = worlds.process()
    found = await get_session(second, "s1")
    assert [event.id for event in found.events] == ["held"]
    assert found.state == {"k": 2}
    assert await stored(worlds, "s1") is None, "what was made is removed"
    assert worlds.odd.calls["create"] == worlds.odd.calls["append"] == 0, "nothing is put again"
    record = await second.lifecycle(SessionKey(APP, USER, "s1"))
    assert (record.status, record.first_message_at) == (Status.WAITING, None)
    await second.append_event(found, message_event("another", id="taken"))
    assert await stored(worlds, "s1") == ["held", "taken"]


async def test_a_refusal_is_told_although_what_was_made_cannot_be_removed_yet(world):
    """The message will never be stored, and its caller hears so at once."""
    service = world.process()
    session = await create_session(service)
    world.odd.arm("append", Fault.REFUSED)
    world.odd.arm("delete", Fault.AWAY)
    with pytest.raises(ValueError, match="never"):
        await service.append_event(session, message_event("hello"))
    place = await service.hand_overs.store.place(SessionKey(APP, USER, session.id))
    assert place.where is Where.MOVING
    world.pass_time()
    assert (await get_session(world.process(), session.id)).events == []
    assert await stored(world, session.id) is None


async def test_a_refusal_that_could_not_be_noted_is_no_refusal(world):
    """The message is still in the lobby, so whoever comes next may store it."""
    service = world.process()
    session = await create_session(service)
    world.odd.arm("append", Fault.REFUSED)

    async def away(name, do):
        if name == "note_refusal":
            raise StoreUnavailableError("the store: it is away")
        return await do()

    service.lobby.doing = away
    with pytest.raises(OutcomeUnknownError):
        await service.append_event(session, message_event("hello", id="m"))
    assert world.odd.calls["delete"] == 0, "nothing is removed before the refusal is noted"
    world.pass_time()
    await world.process().hand_overs.finish_overdue(10)
    assert await stored(world, session.id) == ["m"]


async def test_who_has_lost_its_lease_refuses_nothing(world):
    """Seen to fail where the caller heard the refusal of a message that others had stored."""
    service, odd = None, OddService(world.inner)
    service = world.process(odd)
    session = await create_session(service)
    odd.arm("append", Fault.REFUSED)

    async def stands_still(name, do):
        if name == "note_refusal":
            world.pass_time()
            await world.process().hand_overs.finish_overdue(10)
        return await do()

    service.lobby.doing = stands_still
    await service.append_event(session, message_event("hello", id="m"))
    assert await stored(world, session.id) == ["m"]


async def test_a_copy_of_before_a_refusal_is_good_for_the_next_message(world):
    """Seen to fail where the claim's revision stayed: the caller's own copy was stale."""
    service, changes = world.process(), []
    session = await create_session(service, state={"k": 1})
    await service.append_event(session, note_event({"k": 2}))
    service.feed.subscribe(lambda change: changes.append(change.kind))
    world.odd.arm("append", Fault.REFUSED)
    with pytest.raises(ValueError, match="never"):
        await service.append_event(session, message_event("hello"))
    await service.append_event(session, note_event({"k": 3}))
    await service.append_event(session, message_event("again", id="m"))
    assert (await stored(world, session.id))[-1] == "m"
    assert changes == [ChangeKind.EXTENDED, ChangeKind.USED]


async def acknowledged_but_unsettled(world):
    """Have a message that its caller was told is stored, while the lobby's store was away."""
    service = world.process()

    async def away(name, do):
        if name == "settle":
            raise StoreUnavailableError("the store: it is away")
        return await do()

    service.lobby.doing = away
    session = await create_session(service, session_id="s1")
    await service.append_event(session, message_event("hello", id="m"))
    service.lobby.doing = None
    return service


async def test_a_service_that_refuses_to_be_read_refuses_no_message(world):
    """Seen to fail, and to lose the message, with each refusal taken for one of the message."""
    await acknowledged_but_unsettled(world)
    world.pass_time()
    world.odd.arm("get", Fault.REFUSED)
    world.odd.arm("list", Fault.REFUSED)
    with pytest.raises(StoreUnavailableError):
        await get_session(world.process(), "s1")
    assert await stored(world, "s1") == ["m"]
    world.pass_time()
    found = await get_session(world.process(), "s1")
    assert [event.id for event in found.events] == ["m"]


async def test_a_service_that_does_not_know_lapses_credentials_refuses_no_message(world):
    """Seen to fail where 401 and 403 were refusals: a message that was kept for later was lost."""

    class ForbiddenError(Exception):
        code = 403

    service = world.process()
    session = await create_session(service)

    async def forbidden(_name, _do):
        raise ForbiddenError

    world.odd.around = forbidden
    with pytest.raises(OutcomeUnknownError, match="is kept"):
        await service.append_event(session, message_event("hello", id="m"))
    world.pass_time()
    with pytest.raises(StoreUnavailableError):
        await get_session(world.process(), session.id)
    world.pass_time()
    world.odd.around = None
    assert len((await get_session(world.process(), session.id)).events) == 1
    assert await stored(world, session.id) == ["m"]


async def test_who_settles_late_finds_that_others_have_finished_and_deleted_it(world):
    """Seen to fail where the reader heard of the deletion with an error."""
    service = await acknowledged_but_unsettled(world)
    world.pass_time()
    other = world.process()
    await other.delete_session(APP, USER, "s1")
    again = await create_session(other, session_id="s1", state={"anew": True})
    world.odd.arm("append", Fault.AWAY)
    with pytest.raises(OutcomeUnknownError):
        await other.append_event(again, message_event("anew", id="m2"))
    world.pass_time()
    found = await get_session(service, "s1")
    assert ([event.id for event in found.events], found.state) == (["m2"], {"anew": True})


async def test_what_was_settled_late_by_others_is_forgotten_here(world):
    service = await acknowledged_but_unsettled(world)
    world.pass_time(LEASE_OVER)
    await service.hand_overs.finish_overdue(10)
    assert service.hand_overs._unsettled == {}
    assert len((await get_session(service, "s1")).events) == 1


async def test_only_who_has_the_newest_token_takes_a_message_out_and_only_then_is_it_taken_back(
    store,
):
    """Seen to fail without the fence of the first step, and without the condition of the second."""
    lease, key, first = timedelta(seconds=20), SessionKey(APP, USER, "s1"), Token.new()
    made = await store.at(T0).create(key, state=NO_STATE, ttl=TTL, metadata={})
    seen = made.value.revision
    named = {"token": first, "lease": lease, "counts": True}
    await store.at(T0).claim(key, message("m"), seen, **named)
    later = store.at(T0 + lease)
    taken = await later.take_over(key, fence=new_fence(), lease=lease)
    assert not await later.note_refusal(key, first)
    assert await later.take_back(key, first) is None
    assert await later.take_back(key, taken.token) is None, "nobody has noted a refusal"
    assert await later.note_refusal(key, taken.token)
    last = await store.at(T0 + 2 * lease).take_over(key, fence=new_fence(), lease=lease)
    assert (taken.message.id, taken.is_refused) == ("m", False)
    assert (last.message, last.is_refused) == (None, True)
    assert await later.take_back(key, last.token)
    assert (await later.read(key)).revision == seen
