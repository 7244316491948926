"""Deadlines that runs in flight hold off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from lapse.core.keys import SessionKey
from lapse.store.operation import Asking, Part, key_of, names_of, operation, rows


class HoldStore(Part):
    """Holds off the deadlines of sessions in which runs are in flight."""

    @operation(flushed=False)
    def hold_off(
        self, keys: Sequence[SessionKey], *, held_for: timedelta
    ) -> Asking[Sequence[SessionKey]]:
        """Move deadlines that come within `held_for` to its end; no deadline comes nearer.

        It returns the sessions that wait, and that only the user's message makes used. It leaves
        all others alone: an expired one does not wait again. A repeat does it again.
        """
        found = yield from rows("hold_off", held_for=held_for, **names_of(keys))
        return [key_of(row) for row in found]
