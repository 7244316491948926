"""Erasing a user: passes over all places, until one finds nothing."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from lapse.adk.remembered import Memory
from lapse.core.errors import WrongStatusError
from lapse.core.keys import SessionKey, check_key
from lapse.core.numbers import sessions
from lapse.erasure.places import PLACES
from lapse.erasure.services import Artifacts, OtherService
from lapse.erasure.store import ErasureStore
from lapse.retention.memory_outbox import MemoryOutbox
from lapse.store.database import Database

MOST_PASSES: Final = 20
"""An erasure ends after so many passes, if each finds something that came since the one before."""

_NOT_ERASED: Final = frozenset({"events", "runs", "on_hold", "owed_artifacts", "owed_memory"})
"""The counts of a plan that a receipt lacks: they go with something else, or stay."""

_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure has removed; the audit log has the same without the user's name.

    Attributes:
        erased: how many items of each kind.
        passes: how many passes found something.
        is_whole: whether the last pass found nothing.
        remains: what could not be removed, one sentence each.
        digest: of the key and the user's id; the audit log has it.
        key: only who has it can show that the record in the audit log is about the user. It is
            kept nowhere.
    """

    erased: Mapping[str, int]
    passes: int
    is_whole: bool
    remains: Sequence[str]
    digest: str
    key: str

    def detail(self) -> dict[str, object]:
        """Return what the audit log records."""
        return {
            **self.erased,
            "passes": self.passes,
            "remains": len(self.remains),
            "receipt": self.digest,
        }

    def document(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "erased": in_camel_case(self.erased),
            "passes": self.passes,
            "isWhole": self.is_whole,
            "remains": list(self.remains),
            "receipt": self.digest,
            "key": self.key,
        }


def in_camel_case(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by names as JSON has them."""
    split = {name: name.split("_") for name in counts}
    return {
        first + "".join(part.capitalize() for part in more): counts[name]
        for name, (first, *more) in split.items()
    }


@dataclass(slots=True)
class Erasure:
    """The erasure of one user.

    Args:
        store: where the sessions are.
        user_id: the user.
        end: deletes one session, whatever its status.
        artifacts: the user's artifacts; None: they are not looked for.
        memory: what is remembered of the user; None: it is not looked at.
        elsewhere: what another session service has; None: there is none.
        apps: apps to look into beside those that the store has something of.
    """

    store: Database
    user_id: str
    end: Callable[[SessionKey], Awaitable[object]]
    artifacts: Artifacts | None = None
    memory: Memory | None = None
    elsewhere: OtherService | None = None
    apps: Sequence[str] = ()
    _own: ErasureStore = field(init=False)
    _may_redact: bool = field(init=False, default=False)
    _held_back: Counter[str] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        check_key(SessionKey("-", self.user_id, "-"))
        self._own = ErasureStore(self.store)

    async def plan(self) -> Mapping[str, int]:
        """Count what an erasure would find now, and change nothing."""
        found: Counter[str] = Counter()
        apps = await self._apps()
        erasing = await self._own.erasing(self.user_id, apps)
        held = await self._own.held(self.user_id)
        for app in apps:
            stored = await self._own.stored(app, self.user_id)
            found["sessions"] += stored.sessions
            found["events"] += stored.events
            user = SessionKey(app, self.user_id, "")
            if self.artifacts is not None:
                found["artifacts"] += len(await self.artifacts.names(user))
            async for ids in self._sessions(user):
                found["on_hold"] += sum(held.has(user._replace(session_id=one)) for one in ids)
                found["acts"] += await self._own.count_acts_on(user, ids)
                if self.artifacts is not None:
                    for one in ids:
                        names = await self.artifacts.names(user._replace(session_id=one))
                        found["artifacts"] += len(names)
        found["acts"] += await self._own.count_acts_of(self.user_id)
        for place in PLACES:
            for app in apps if place.by_app else ("",):
                found[place.name] += await self._own.count(place, app, erasing)
        found["owed_artifacts"] = await self._own.count_owed(self.user_id)
        found["owed_memory"] = await self._own.count_owed_memory(self.user_id)
        return dict(found)

    async def run(self, by: str, on_progress: Callable[[int], None] = lambda _: None) -> Receipt:
        """Erase until a pass finds nothing, and record the receipt as done by `by`.

        It may be stopped at any moment and run again: what is gone stays gone, and the receipt
        counts it. What the user does before the last pass looks at their sessions is erased, or was
        refused; what they do later is new.

        Raises:
            StoreUnavailableError: the store or a service does not answer; run it again.
        """
        erased: Counter[str] = Counter()
        earlier = await self._erased_before()
        self._may_redact = await self._own.may_redact()
        passes, is_whole, seen = 0, False, set(self.apps)
        while passes < MOST_PASSES and not is_whole:
            seen.update(await self._own.apps(self.user_id))
            found = await self._pass(erased.total(), on_progress)
            erased += found
            is_whole = not found.total()
            passes += not is_whole
        key = secrets.token_hex(16)
        receipt = Receipt(
            dict(sorted((erased + earlier).items())),
            passes,
            is_whole,
            await self._remains(sorted(seen)),
            sha256(f"{key} {self.user_id}".encode()).hexdigest(),
            key,
        )
        await self._own.finish(self.user_id, by=by, detail=receipt.detail())
        return receipt

    async def _erased_before(self) -> Counter[str]:
        """Return what erasures of the user have removed that were stopped before their receipt."""
        now = await self.plan()
        begun = await self._own.begin(self.user_id, now)
        return +Counter(
            {
                name: number - now.get(name, 0)
                for name, number in begun.items()
                if name not in _NOT_ERASED
            }
        )

    async def _apps(self) -> Sequence[str]:
        return sorted({*await self._own.apps(self.user_id), *self.apps})

    async def _pass(self, before: int, on_progress: Callable[[int], None]) -> Counter[str]:
        found: Counter[str] = Counter()
        apps = await self._apps()
        self._held_back.clear()
        for app in apps:
            user = SessionKey(app, self.user_id, "")
            async for ids in self._sessions(user):
                await self._end_all(user, ids, found)
                on_progress(before + found.total())
            held = await self._own.held(self.user_id)
            if self.artifacts is not None and not held.touches(app):
                found["artifacts"] += await self.artifacts.delete(user)
        held = await self._own.held(self.user_id)
        if not held.touches(""):
            await self._settle_owed(found)
            await self._forget_owed()
        erasing = await self._own.erasing(self.user_id, apps)
        for place in PLACES:
            for app in apps if place.by_app else ("",):
                if held.touches(app):
                    continue  # what is beside a session on hold is part of it
                left = await self._own.count(place, app, erasing)
                while left > 0 and (taken := await self._own.take(place, app, erasing)):
                    found[place.name] += taken
                    left -= taken
                    on_progress(before + found.total())
        if self._may_redact and not held.touches(""):
            found["acts"] += await self._own.redact_acts_of(self.user_id)
        return +found

    async def _end_all(self, user: SessionKey, every: Sequence[str], found: Counter[str]) -> None:
        """Delete those of some sessions that are not on hold, with what is beside and names them.

        What names them goes first, because nothing leads to it once they are gone, and then what
        has been written meanwhile. A session that is put on hold from here on is either gone, or
        its own deletion refuses.
        """
        held = await self._own.held(self.user_id)
        ids = [one for one in every if not held.has(user._replace(session_id=one))]
        self._held_back[user.app_name] += len(every) - len(ids)
        await self._take_names(user, ids, found)
        for one in ids:
            key = user._replace(session_id=one)
            if self.memory is not None:
                await self._forget(self.memory, key)
            if self.artifacts is not None:
                found["artifacts"] += await self.artifacts.delete(key)
            try:
                await self.end(key)
            except WrongStatusError:
                self._held_back[user.app_name] += 1
            else:
                found["sessions"] += 1
        await self._take_names(user, ids, found)

    async def _take_names(self, user: SessionKey, ids: Sequence[str], found: Counter[str]) -> None:
        await self._own.take_traces(user, ids)
        if self._may_redact:
            found["acts"] += await self._own.redact_acts_on(user, ids)

    async def _forget(self, memory: Memory, key: SessionKey) -> None:
        after = ""
        while ids := await self._own.event_ids(key, after=after, limit=_PAGE):
            await memory.forget(key, ids)
            after = ids[-1]
        await memory.forget(key, await self._own.archived_event_ids(key))
        if self.elsewhere is not None:
            await memory.forget(key, await self.elsewhere.event_ids(key))

    async def _settle_owed(self, found: Counter[str]) -> None:
        """Delete the artifacts of ended sessions; without a service, forget that they are owed."""
        left = await self._own.count_owed(self.user_id)
        while left > 0 and (owed := await self._own.owed(self.user_id)):
            for key in owed:
                if self.artifacts is not None:
                    found["artifacts"] += await self.artifacts.delete(key)
                await self._own.forget_owed(key)
            left -= len(owed)

    async def _forget_owed(self) -> None:
        """Forget what is left of purged sessions; without a service, forget that it is owed."""
        outbox = MemoryOutbox(self.store)
        left = await self._own.count_owed_memory(self.user_id)
        while left > 0 and (owed := await self._own.owed_memory(self.user_id)):
            for one in owed:
                if self.memory is not None:
                    await self.memory.forget(one.key, one.event_ids)
                await outbox.settle_memory(one)
            left -= len(owed)

    async def _sessions(self, user: SessionKey) -> AsyncIterator[Sequence[str]]:
        """Yield the ids of a user's sessions in an app, page by page.

        They are at most as many as there are when it begins: it ends although the user goes on.
        """
        after, everywhere = "", self.elsewhere is not None
        left = (await self._own.stored(user.app_name, user.user_id)).sessions
        while left > 0:
            size = min(left, _PAGE)
            ids = await self._own.ids(user, after=after, limit=size, everywhere=everywhere)
            if not ids:
                break
            yield ids
            after, left = ids[-1], left - len(ids)
        if self.elsewhere is not None and (others := await self.elsewhere.ids(user)):
            yield others

    async def _remains(self, apps: Sequence[str]) -> Sequence[str]:
        remains = [
            f"on hold: {sessions(number)} of app {app}, with the data beside them: run it again "
            "once an operator has released the hold"
            for app, number in sorted((+self._held_back).items())
        ]
        if not remains and (await self._own.held(self.user_id)).touches(""):
            remains.append("data on hold: run it again once an operator has released the hold")
        for app in await self._own.apps(self.user_id):
            stored = await self._own.stored(app, self.user_id)
            if stored.elsewhere:
                remains.append(
                    f"{sessions(stored.elsewhere)} of app {app} in another session service: run it "
                    "again with LAPSE_CONVERSATIONS_URI"
                )
        if self.elsewhere is not None:
            remains += [
                f"the user's state of app {app} in the other session service"
                for app in apps
                if await self.elsewhere.keeps_state(SessionKey(app, self.user_id, ""))
            ]
        if await self._own.keeps_old_tables():
            remains.append(
                "tables that a migration from ADK's version 0 has set aside (lapse_v0_…, "
                "lapse_undone_…): drop them, lapse_v0_… with `lapse migrate --drop-v0`, and run it "
                "again"
            )
        if not self._may_redact:
            remains.append(
                "the audit log: acts keep digests and the beginnings of sessions' ids, and the "
                "user's own acts keep the name; only the table's owner may take these out"
            )
        if self.artifacts is None:
            remains.append("artifacts: it is not known where they are kept")
        if self.memory is None:
            remains.append("memory: it is not known where it is kept")
        elif not self.memory.can_delete:
            remains.append("memory: its service cannot delete")
        return remains
