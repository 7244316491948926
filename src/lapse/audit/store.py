"""The part of a store that remembers who changed what by hand.

Records are only ever added: the store refuses to change or delete one. Where a change is asked
for by somebody (`by` of `Store.expire`, `extend`, `amend`, `resurrect` and `delete`), its record
is written in the transaction of the change, so there is never one without the other; a call that
changes nothing leaves none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from lapse.core.minutes import minutes_of


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did.

    Attributes:
        number: grows with every record.
        at: by the store's clock.
        by: the principal, such as `ann`, `operator` or `cli:root@host`.
        action: what was done: a `ChangeKind`, or what else operators do (`swept`, `confirmed`).
        app_name: the app of the session; None where it was about none.
        session: the first characters of the session's id; None likewise.
        detail: what else is worth knowing; no content of a session.
    """

    number: int
    at: datetime
    by: str
    action: str
    app_name: str | None = None
    session: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


def amendment(metadata: Mapping[str, Any] | None, ttl: timedelta | None) -> dict[str, Any]:
    """Return the detail of an amendment: which parts of a record were changed."""
    detail: dict[str, Any] = {}
    if metadata is not None:
        detail["metadata"] = True
    if ttl is not None:
        detail["ttl_minutes"] = minutes_of(ttl)
    return detail


class Audited(Protocol):
    """What is remembered of acts."""

    async def record_act(self, by: str, action: str, detail: Mapping[str, Any]) -> None:
        """Remember an act that is about no session in particular."""
        ...

    async def acts(self, *, newest: int, before: int | None = None) -> Sequence[Act]:
        """Return the `newest` records, of those with a number below `before`; newest first."""
        ...
