"""Hands sessions over to another service, and removes them from it; see `rules.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

from lapse.conversations.lease import Lease
from lapse.conversations.putting import missing, other_id
from lapse.conversations.removing import Removing, tell
from lapse.conversations.rules import Bounds, HandOver, Place, Token, Where, new_fence
from lapse.conversations.service import (
    ConversationService,
    LostError,
    RefusedError,
    ServiceSession,
)
from lapse.core.errors import (
    LapseError,
    OnItsWayError,
    OutcomeUnknownError,
    StoreUnavailableError,
    no_such_session,
)
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change
from lapse.store.database import Database
from lapse.store.records import LastSeen, NewEvent, Result, Revision

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_MOST_TRIES: Final = 4


class Run(Protocol):
    """Runs a transition to its end, also if its caller is cancelled, and publishes its changes."""

    async def __call__(
        self, name: str, key: SessionKey, transition: Coroutine[Any, Any, Result[T]], /
    ) -> Result[T]:
        """Return the transition's result."""
        ...


class HandOvers(Removing):
    """Moves sessions from the lobby into a service, with their first message, and deletes them.

    Args:
        database: where the lobby is.
        service: where conversations live.
        bounds: how long calls and waiting may take.
        run: runs a transition to its end, also if nobody waits for it any more.
        publish: tells of committed changes.
        on_left: called when something was left on its way, for `finish_overdue` to finish.
        clock: tells how long a lease lasts, in seconds; only for tests.
    """

    def __init__(
        self,
        database: Database,
        service: ConversationService,
        *,
        bounds: Bounds,
        run: Run,
        publish: Callable[[Sequence[Change]], None],
        on_left: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(database, service, bounds=bounds, clock=clock)
        self._run = run
        self._publish = publish
        self._on_left = on_left
        self._unsettled: dict[SessionKey, tuple[Token, str | None]] = {}
        """What this process has put while the store was away; its lease need not end first."""

    async def settled(self, key: SessionKey, *, for_reader: bool = False) -> Place:
        """Return where a session is, as soon as nobody hands it over or deletes it.

        It finishes a hand-over or a deletion whose lease is over. `for_reader`: a session that is
        being deleted does not exist, and nobody has to wait for that.

        Raises:
            OnItsWayError: somebody is at work on it for longer than this waits.
            StoreUnavailableError: the service does not answer.
        """
        give_up = time.monotonic() + self._bounds.wait.total_seconds()
        pause = _FIRST_PAUSE
        while True:
            place = await self.store.place(key)
            if not place.is_on_its_way:
                self._unsettled.pop(key, None)
                return place
            if for_reader and place.where is Where.DELETING and place.lease.total_seconds() > 0:
                return place
            left = give_up - time.monotonic()
            if left <= 0:
                raise OnItsWayError(f"session {key.named} is being moved; try again in a moment")
            if (put := self._unsettled.pop(key, None)) is not None:
                finishing = self._settled_late(key, *put)
            elif place.lease.total_seconds() > 0:
                await asyncio.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            else:
                finishing = self.take_over(key)
            try:
                async with asyncio.timeout(left):
                    finished = await self._run("take over", key, _tried(finishing))
            except TimeoutError:
                continue
            if finished.value is not None:
                raise finished.value

    async def first_message(
        self, key: SessionKey, event: NewEvent, seen: Revision | LastSeen, *, counts: bool
    ) -> Result[ServiceSession | None]:
        """Hand a session over with its first message. It must run to its end.

        The value is the session in the service, with the message. It is None if the session does
        not wait, or not as `seen`.

        Raises:
            RefusedError: the service refuses it for good; the session waits again.
            NoSuchSessionError: the session was deleted in the meantime.
            OutcomeUnknownError: the service or the store does not answer; the message is durable,
                and whoever comes next stores it.
        """
        since = self._clock()
        try:
            claimed = await self.store.claim(
                key, event, seen, token=Token.new(), lease=self._bounds.lease, counts=counts
            )
        except OutcomeUnknownError:
            self._on_left()
            raise
        if claimed is None:
            return Result(None)
        self._publish(claimed.changes)
        work = claimed.value
        lease = self._lease(work, since)
        try:
            made = await self._putting.put(work, lease, is_new=True)
        except LostError:
            return Result(await self._after_loss(work))
        except RefusedError as refusal:
            return Result(await self._refused(work, lease, refusal))
        except StoreUnavailableError as error:
            raise self._left(key) from error
        return await self._settle(work, made)

    def _left(self, key: SessionKey) -> OutcomeUnknownError:
        self._on_left()
        return OutcomeUnknownError(
            f"session {key.named}: its service does not answer; the message is kept, and is stored "
            "there later; do not send it again"
        )

    async def _settle(self, work: HandOver, made: ServiceSession) -> Result[ServiceSession | None]:
        """Note that the service has a session with its message: a failure is not the caller's."""
        service_id = other_id(work.key, made)
        try:
            settled = await self.store.settle(work.key, work.token, service_id=service_id)
        except StoreUnavailableError as error:
            tell("a hand-over is not settled yet", work.key, error)
            self._unsettled[work.key] = work.token, service_id
            self._on_left()
            return Result(made)
        if settled is None:
            return Result(await self._after_loss(work))
        return Result(made, settled.changes)

    async def _settled_late(
        self, key: SessionKey, token: Token, service_id: str | None
    ) -> Result[None]:
        """Settle what this process has put before; a no-op if somebody else has taken it over."""
        try:
            settled = await self.store.settle(key, token, service_id=service_id)
        except StoreUnavailableError:
            self._unsettled[key] = token, service_id
            raise
        return settled or Result(None)

    async def _refused(self, work: HandOver, lease: Lease, refusal: RefusedError) -> ServiceSession:
        """Take a hand-over back whose message the service refuses.

        It is noted first: from then on nobody stores the message, whatever happens to this process.
        Return the session if somebody else has stored the message before.

        Raises:
            RefusedError: nobody has, and nobody will.
        """
        try:
            is_noted = await self.store.note_refusal(work.key, work.token)
        except StoreUnavailableError as error:
            raise self._left(work.key) from error
        if not is_noted:
            return await self._after_loss(work)
        try:
            back = await self._take_back(work, lease)
            self._publish(back.changes)
        except LostError:
            pass  # whoever has taken it over takes it back
        except StoreUnavailableError as error:
            tell("a refused hand-over cannot be taken back yet", work.key, error)
            self._on_left()
        raise refusal

    async def take_over(self, key: SessionKey) -> Result[None]:
        """Finish a hand-over or deletion whose lease is over, unless somebody else was first.

        Raises:
            StoreUnavailableError: the service does not answer.
        """
        since = self._clock()
        work = await self.store.take_over(key, fence=new_fence(), lease=self._bounds.lease)
        if work is None:
            return Result(None)
        self._unsettled.pop(key, None)
        lease = self._lease(work, since)
        try:
            return await self._finished(work, lease)
        except LostError:
            if work.message is not None:
                await self._clean_up(work)
            return Result(None)

    async def _finished(self, work: HandOver, lease: Lease) -> Result[None]:
        key = work.key
        if work.is_delete:
            try:
                await self._remove(work, lease)
            except RefusedError as refusal:
                tell("the service refuses to delete a session", key, refusal.error)
            return Result(None)
        if work.is_refused:
            return await self._take_back(work, lease)
        try:
            made = await self._putting.put(work, lease, is_new=False)
        except RefusedError as refusal:
            tell("the service refuses a first message", key, refusal.error)
            if not await self.store.note_refusal(key, work.token):
                raise LostError("the hand-over was taken over") from refusal
            return await self._take_back(work, lease)
        settled = await self.store.settle(key, work.token, service_id=other_id(key, made))
        if settled is None:
            raise LostError("the hand-over was taken over")
        return settled

    async def delete(self, key: SessionKey, *, by: str | None) -> Result[bool]:
        """Delete a session in the lobby and in the service; False: ADK's tables here hold it.

        It is gone at once for every reader who asks the lobby, although the service may not have
        removed it yet. It must run to its end.

        Raises:
            OnItsWayError: somebody is at work on it for longer than this waits.
            StoreUnavailableError: the service does not answer; whoever comes next removes it.
        """
        give_up = time.monotonic() + self._bounds.wait.total_seconds()
        while True:
            place = await self.settled(key)
            if place.where is Where.HERE:
                return Result(False)
            if place.where is Where.NOWHERE and not await self._putting.exists(key):
                return Result(True)
            since, token = self._clock(), Token.new()
            begun = await self.store.begin_delete(key, token=token, lease=self._bounds.lease, by=by)
            if begun is not None:
                break
            if time.monotonic() >= give_up:
                raise OnItsWayError(f"session {key.named} is being moved; try again in a moment")
            await asyncio.sleep(_FIRST_PAUSE)
        self._publish(begun.changes)
        work = begun.value
        lease = self._lease(work, since)
        try:
            await self._remove(work, lease, was_handed_over=work.token.mark != token.mark)
        except LostError:
            pass  # whoever has taken the deletion over finishes it
        except RefusedError as refusal:
            raise refusal.error from None
        except StoreUnavailableError:
            self._on_left()
            raise
        return Result(True)

    async def finish_overdue(self, limit: int) -> int:
        """Finish at most `limit` hand-overs and deletions that somebody has left; return how many.

        Raises:
            StoreUnavailableError: the store or the service does not answer; all were tried.
        """
        keys = await self.store.overdue(limit)
        faults: list[LapseError] = []
        for key in keys:
            try:
                await self._run("take over", key, self.take_over(key))
            except LapseError as error:
                faults.append(error)
        if faults:
            raise faults[0]
        return len(keys)

    async def _after_loss(self, work: HandOver) -> ServiceSession:
        """Find out what has become of a hand-over that somebody else has taken over.

        Raises:
            NoSuchSessionError: the session was deleted in the meantime.
            OutcomeUnknownError: the message may be stored, or may be stored later.
        """
        await self._clean_up(work)
        found = None
        try:
            place = await self.settled(work.key)
            is_same = place.token is not None and place.token.mark == work.token.mark
            if is_same and place.where is Where.ELSEWHERE:
                found = await self._service.find(work.key, place.service_id)
        except (StoreUnavailableError, RefusedError) as error:
            raise self._left(work.key) from error
        if not is_same:
            raise no_such_session(work.key.named)
        if found is not None and not missing(work, found):
            return found
        raise OutcomeUnknownError(
            f"session {work.key.named} was handed over by another process; read it before you send "
            "anything again"
        )

    async def _clean_up(self, work: HandOver) -> None:
        """Remove what this process has made, if nobody else has taken it over with the session.

        That is so if the session was deleted in the meantime, or waits again.
        """
        error: Exception | None = None
        try:
            for _ in range(_MOST_TRIES):
                if await self._is_cleaned_up(work, await self.settled(work.key)):
                    return
        except (LapseError, RefusedError) as fault:
            error = fault
        tell("a session that a late hand-over has made may be left in the service", work.key, error)


async def _tried(finishing: Coroutine[Any, Any, Result[None]]) -> Result[LapseError | None]:
    """Finish something, for a caller that may have gone before it fails."""
    try:
        finished = await finishing
    except LapseError as error:
        return Result(error)
    return Result(None, finished.changes)
