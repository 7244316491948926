"""Deadlines that runs in flight hold off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import ChangeKind, Status
from lapse.store.lifecycles import changed_before
from lapse.store.operation import Asking, Part, key_of, names_of, operation, rows
from lapse.store.records import Result, change_of
from lapse.store.riders import counted


class HoldStore(Part):
    """Holds off the deadlines of sessions in which runs are in flight."""

    @operation(flushed=False)
    def hold_off(
        self, keys: Sequence[SessionKey], *, held_for: timedelta
    ) -> Asking[Sequence[SessionKey]]:
        """Move deadlines that come within `held_for` to its end; no deadline comes nearer.

        It returns the sessions that wait and that only the user's message makes used. It changes no
        others: an expired session does not wait again. A repeat does it again.
        """
        found = yield from rows("hold_off", held_for=held_for, **names_of(keys))
        return [key_of(row) for row in found]

    @operation()
    def restart_ttl(self, key: SessionKey, *, held_for: timedelta) -> Asking[Result[None]]:
        """Give a session a fresh TTL from now: a run begins in it, or all runs in it have ended.

        A deadline within `held_for` may come nearer, because a hold has set it. It changes nothing
        in a session that `hold_off` would not return. A repeat is recognised by the note of the
        first attempt.

        Raises:
            NoSuchSessionError: the session was deleted after the first attempt of the call.
        """
        answer = yield from rows("restart_ttl", key, held_for=held_for)
        if answer:
            yield from counted(key, ChangeKind.EXTENDED, Status.WAITING, Status.WAITING)
            return Result(None, (change_of(answer[0], self.rules, ChangeKind.EXTENDED),))
        before = yield from changed_before(key, answer, self.rules, ChangeKind.EXTENDED)
        return Result(None, () if before is None else before.changes)
