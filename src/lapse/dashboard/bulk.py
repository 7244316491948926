"""One act on many sessions: what it would do, and doing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from lapse.core.errors import InvalidValueError, NoSuchSessionError, WrongStatusError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.dashboard.actions import ALLOWED, Action, Actions
from lapse.dashboard.cookies import Operator
from lapse.overview.store import OverviewStore, Query
from lapse.store.database import Database
from lapse.store.sessions import Sessions

MOST_AT_ONCE: Final = 500
"""An act takes at most this many sessions."""

_KEY: Final = ("app", "user", "id")


@dataclass(frozen=True, slots=True)
class Plan:
    """The sessions that an act on many would change, and those that it would not.

    Attributes:
        fitting: the records of the sessions that it would change.
        others: the records of those whose status does not allow it.
        gone: how many sessions do not exist any more.
        more: whether more sessions match than one act takes.
    """

    fitting: Sequence[Lifecycle]
    others: Sequence[Lifecycle]
    gone: int = 0
    more: bool = False


def keys_of(addresses: Iterable[str]) -> list[SessionKey]:
    """Return the keys in the addresses that the fields of a form hold.

    Raises:
        InvalidValueError: one is not an address, or they are more than MOST_AT_ONCE.
    """
    keys = []
    for address in addresses:
        parts = parse_qs(address, keep_blank_values=True)
        if set(parts) != set(_KEY) or any(len(values) != 1 for values in parts.values()):
            raise InvalidValueError("key", "must be the address of a session")
        keys.append(SessionKey(*(parts[name][0] for name in _KEY)))
    if len(keys) > MOST_AT_ONCE:
        raise InvalidValueError(
            "key", f"must be at most {MOST_AT_ONCE} sessions at once, not {len(keys)}"
        )
    return list(dict.fromkeys(keys))


async def plan_of(database: Database, action: Action, keys: Iterable[SessionKey]) -> Plan:
    """Return what an act on these sessions would do now."""
    found = [await Sessions(database).lifecycle(key) for key in keys]
    return _plan(action, [record for record in found if record is not None], found.count(None))


async def plan_of_query(database: Database, action: Action, query: Query) -> Plan:
    """Return what an act on the first MOST_AT_ONCE sessions of a query would do now."""
    records: list[Lifecycle] = []
    after: str | None = None
    while True:
        size = MOST_AT_ONCE - len(records)
        asked = Query(query.status, query.app_name, query.user_id, query.prefix, after, size)
        page = await OverviewStore(database).find(asked)
        records += page.records
        after = page.next
        if after is None or len(records) >= MOST_AT_ONCE:
            break
    return _plan(action, records, 0, more=after is not None)


def _plan(action: Action, records: Iterable[Lifecycle], gone: int, *, more: bool = False) -> Plan:
    fitting: list[Lifecycle] = []
    others: list[Lifecycle] = []
    for record in records:
        (fitting if allows(record.status, action) else others).append(record)
    return Plan(fitting, others, gone, more)


def allows(status: Status, action: Action) -> bool:
    """Return whether the pages offer an act for a status."""
    return action in ALLOWED.get(status, ())


async def do_all(
    actions: Actions, action: Action, keys: Iterable[SessionKey], operator: Operator
) -> tuple[int, int]:
    """Do an act on each session, and return how many were changed and how many were not.

    Each is an act of its own, with its own record in the audit log. One that is gone, or whose
    status does not allow the act any more, is left.
    """
    done = left = 0
    for key in keys:
        try:
            await actions.do(action, key, operator)
        except (NoSuchSessionError, WrongStatusError):
            left += 1
        else:
            done += 1
    return done, left
