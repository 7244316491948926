"""A hand-over whose process ends or stands still between two steps, and what must hold then."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from google.adk.errors.already_exists_error import AlreadyExistsError

from adk_builders import APP, USER, create_session, delete_session, get_session, message_event
from adk_builders import state_event as note_event
from lapse.adk.errors import SessionNotFoundError, StaleSessionError
from lapse.conversations.rules import Where
from lapse.core.errors import LapseError
from lapse.core.keys import SessionKey
from odd_service import OddService

STEPS = frozenset(
    {
        "claim",
        "renew",
        "settle",
        "take_over",
        "note_refusal",
        "take_back",
        "begin_delete",
        "end_delete",
        "place",
    }
)
"""The operations of the lobby before and after which a process may end."""

REFUSALS = (StaleSessionError, SessionNotFoundError, AlreadyExistsError, LapseError)


class Killed(BaseException):
    """The process ends here: nothing of it runs any more."""


class Stop:
    """Ends a process at its n-th step, or has it stand still there until it is let go on.

    Each call has two steps: before it is done, and after. A process does not stand still in the
    middle of a call of the service: a call that outlives its lease is another matter.
    """

    def __init__(self, at, *, kills):
        self._left = at
        self._kills = kills
        self._is_dead = False
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def _step(self, *, in_call=False):
        if self._is_dead:
            raise Killed
        self._left -= 1
        if self._left > 0 or self.reached.is_set() or (in_call and not self._kills):
            return
        self.reached.set()
        if self._kills:
            self._is_dead = True
            raise Killed
        await self.go_on.wait()

    async def of_lobby(self, name, do):
        return await (self._around(do) if name in STEPS else do())

    async def of_service(self, _name, do):
        return await self._around(do, is_call=True)

    async def _around(self, do, *, is_call=False):
        await self._step(in_call=is_call)
        done = await do()
        await self._step()
        return done


@dataclass
class Told:
    """What callers were told of one session, and what they have asked for."""

    session_id: str
    held: int
    acknowledged: bool = False
    deletes: int = 0
    appends: int = 0
    said: list = field(default_factory=list)
    """Messages that others have appended to the session, and were told are stored."""
    anew: list = field(default_factory=list)
    """Messages of a session of the same id that was created after a deletion."""

    @property
    def key(self):
        return SessionKey(APP, USER, self.session_id)

    @property
    def message(self):
        return f"{self.session_id}-m"


async def play(world, seed, *, change=lambda _: None):
    """Play one hand-over that is interrupted, and what others do meanwhile; return the faults.

    `change` breaks each process on purpose, to see that a fault is found.
    """
    chance = random.Random(seed)
    kills = chance.random() < 0.6
    stop = Stop(chance.randint(1, 16), kills=kills)
    odd = OddService(world.inner)
    first = world.process(odd)
    change(first)
    told = Told(f"s{seed}", chance.randrange(3))
    session = await create_session(first, session_id=told.session_id, state={"k": 0})
    for number in range(told.held):
        await first.append_event(
            session, note_event({"k": number}, id=f"{told.session_id}-{number}")
        )
    # A deletion that stands still may go on when there is another session of the id.
    deletes = kills and chance.random() < 0.3
    first.lobby.doing, odd.around = stop.of_lobby, stop.of_service
    running = asyncio.create_task(_hand_over(first, session, told, deletes=deletes))
    stopped = asyncio.create_task(stop.reached.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    where = (await _place(world, told)).where
    claimed = where in {Where.MOVING, Where.ELSEWHERE}
    told.deletes += where in {Where.DELETING, Where.NOWHERE}
    world.pass_time()
    others = [world.process() for _ in range(2)]
    for other in others:
        change(other)
    await asyncio.gather(*(_come(chance, one, told, n) for n, one in enumerate(others)))
    if told.deletes and chance.random() < 0.7:
        await _create_anew(others[0], told)
    stop.go_on.set()
    await asyncio.gather(running, return_exceptions=True)
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    return await _faults(world, told, is_due=claimed)


async def _hand_over(process, session, told, *, deletes):
    try:
        await process.append_event(session, message_event("hello", id=told.message))
        told.acknowledged = True
        if deletes:
            await delete_session(process, told.session_id)
    except (Killed, *REFUSALS):
        pass


async def _come(chance, process, told, number):
    """Come next, and do one thing."""
    match chance.choice(["read", "list", "append", "finish", "delete"]):
        case "read":
            await get_session(process, told.session_id)
        case "list":
            await process.list_sessions(app_name=APP, user_id=USER)
            await get_session(process, told.session_id)
        case "append":
            found = await get_session(process, told.session_id)
            if found is None:
                return
            told.appends += 1
            more = message_event(f"more {number}", id=f"{told.session_id}-more-{number}")
            try:
                await process.append_event(found, more)
                told.said.append(more.id)
            except REFUSALS:
                pass
        case "delete":
            told.deletes += 1
            await delete_session(process, told.session_id)
        case _:
            await process.hand_overs.finish_overdue(100)


async def _create_anew(process, told):
    """Create a session of the same id, which the deleted one must not touch."""
    try:
        again = await create_session(process, session_id=told.session_id, state={"anew": True})
        told.anew.append(None)
        message = message_event("anew", id=f"{told.session_id}-anew")
        await process.append_event(again, message)
        told.anew.append(message.id)
    except REFUSALS:
        pass


async def _place(world, told):
    return await world.process().hand_overs.store.place(told.key)


async def _stored(world, session_id):
    """Return the session that the service has; None, too, if it takes no such id."""
    with suppress(ValueError):
        return await world.inner.get_session(app_name=APP, user_id=USER, session_id=session_id)


async def _faults(world, told, *, is_due):
    last = world.process()
    for _ in range(2):
        world.pass_time()
        await last.hand_overs.finish_overdue(100)
    shown = await get_session(last, told.session_id)
    place = await _place(world, told)
    stored = await _stored(world, place.service_id or told.session_id)
    ids = [event.id for event in (shown.events if shown is not None else ())]
    faults = [f"{name} is stored {n} times" for name, n in Counter(ids).items() if n > 1]
    if place.is_on_its_way:
        faults.append(f"it stays {place.where}")
    is_rewritten = told.deletes and told.appends and world.rewrites_deleted
    if not is_rewritten and (stored is not None) is not (place.where is Where.ELSEWHERE):
        faults.append(f"it is {place.where}, and the service has it: {stored is not None}")
    if told.anew:
        expected = told.anew[1:]
        return faults + ([] if ids == expected else [f"it has {ids}, and was made with {expected}"])
    if told.deletes:
        is_deleted = shown is None or is_rewritten
        return faults + ([] if is_deleted else ["it is not deleted"])
    if shown is None:
        return [*faults, "it is hidden"]
    expected = [f"{told.session_id}-{number}" for number in range(told.held)]
    if told.acknowledged or is_due:
        expected.append(told.message)
    faults += [f"{name} is lost" for name in [*expected, *told.said] if name not in ids]
    if ids[: len(expected)] != expected:
        faults.append(f"{ids} is out of order")
    if shown.state.get("k") != max(told.held - 1, 0):
        faults.append(f"its state is {shown.state}")
    return faults
