"""Runs in flight hold off the expiry of their sessions, where only the user's message is use.

A run that the user's message began needs no hold: that message made the session used. The session
of any other run waits while the agent works, and must not expire under it. Deadlines remain data:
a hold moves the deadline ahead, a little at a time, so it lapses soon after its process has died.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from lapse.adk.private.look_ups import is_look_before_a_run
from lapse.adk.transitions import Transitions
from lapse.core.background import FOREVER, Background
from lapse.core.errors import NoSuchSessionError
from lapse.core.keys import SessionKey
from lapse.store.database import Database
from lapse.store.holding import HoldStore
from lapse.store.records import Result, SessionRecord

_BEAT: Final = timedelta(seconds=2)
"""How often the deadlines of all held sessions are moved ahead."""

_HELD_FOR: Final = timedelta(seconds=10)
"""How far ahead they are at least, after each beat; a dead process's sessions expire after that."""


class Holds:
    """The runs in flight in this process, and the sessions whose expiry they hold off.

    Args:
        store: where the sessions are.
        transitions: carries out what nobody waits for.
    """

    def __init__(self, store: Database, transitions: Transitions) -> None:
        self._store = HoldStore(store)
        self._transitions = transitions
        self._runs: Counter[SessionKey] = Counter()
        self._held: dict[SessionKey, SessionKey] = {}
        """The stored key of each session whose deadline is moved, by its stripped key."""
        self._beating = Background("the holds of runs", self._beat, longest_retry=_BEAT)

    def run(self, key: SessionKey) -> Callable[[], None]:
        """Note that a run begins in a session; call the result when it has ended."""
        stripped = key.stripped
        self._runs[stripped] += 1
        return lambda: self._ended(stripped)

    def has_run(self, key: SessionKey) -> bool:
        """Return whether a run of this process is in flight, or begins, in a session."""
        return key.stripped in self._runs

    async def holds(self, session: SessionRecord) -> bool:
        """Hold off the expiry of a session that was read, if a run of this process is in it.

        If ADK looks the session up for a run whose end Lapse will not hear of, the session gets a
        fresh TTL.

        False: the session had to be held, and does not wait any more.
        """
        key, stripped = session.key, session.key.stripped
        if not session.awaits_user or stripped in self._held:
            return True
        if stripped not in self._runs:
            if is_look_before_a_run():
                await self._transitions.run("restart ttl", key, self._restarted(key))
            return True
        if not await self._store.hold_off([key], held_for=_HELD_FOR):
            return False
        if stripped in self._runs:
            self._held[stripped] = key
            await self._beating.start()
            self._beating.wake(_BEAT)
        return True

    async def stop(self) -> None:
        """Hold nothing any more."""
        await self._beating.stop()

    def _ended(self, key: SessionKey) -> None:
        self._runs[key] -= 1
        if self._runs[key]:
            return
        del self._runs[key]
        held = self._held.pop(key, None)
        if held is not None:
            restarted = self._restarted(held)
            self._transitions.begin("restart ttl", held, restarted, unless=(NoSuchSessionError,))

    def _restarted(self, key: SessionKey) -> Coroutine[Any, Any, Result[None]]:
        return self._store.restart_ttl(key, held_for=_HELD_FOR)

    async def _beat(self) -> timedelta:
        """Move the deadlines of held sessions ahead; forget those that do not wait any more."""
        asked = list(self._held.values())
        if not asked:
            return FOREVER
        for key in set(asked) - set(await self._store.hold_off(asked, held_for=_HELD_FOR)):
            self._held.pop(key.stripped, None)
        return _BEAT
