"""The riders that most transitions have: counts of changes, and who asked for a change."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import ChangeKind, Status
from lapse.store.operation import Asking, Row, rows


def counted(
    key: SessionKey,
    kind: ChangeKind | None,
    was: str | None,
    became: str | None,
    sessions: int = 1,
) -> Asking[None]:
    """Count changes of the key's app, in their transaction.

    `was` and `became` are the statuses as stored, before and after; None if there was, or is, no
    record. Without a kind the levels by status move, and no change is counted.
    """
    yield from rows(
        "count", key, kind=kind or "", was=was or "", became=became or "", sessions=sessions
    )


def all_counted(
    found: Iterable[Row], kind: ChangeKind, was: Status | None, became: Status | None
) -> Asking[None]:
    """Count a change of many rows, in their transaction."""
    for app_name, sessions in Counter(row["app_name"] for row in found).items():
        yield from counted(SessionKey(app_name, "", ""), kind, was, became, sessions)


def audited(key: SessionKey, by: str | None, action: str, /, **detail: Any) -> Mapping[str, Any]:
    """Return the statement parameters that record who asks for which change of which session.

    The digest names the session to the audit log. It is None if `by` is None, because then nothing
    is recorded, and for an act that is about no session.
    """
    digest = None if by is None or not key.session_id else key.digest
    return {"by": by, "action": action, "digest": digest, "detail": json.dumps(detail)}
