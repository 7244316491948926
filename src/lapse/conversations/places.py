"""Where sessions are: in the lobby, in the other service, or on their way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lapse.conversations.rules import Place, Token, Where, where_of
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle
from lapse.store.operation import Asking, Part, Row, key_of, native, only, operation, rows
from lapse.store.records import Revision, SessionRecord, lifecycle_of


@dataclass(frozen=True, slots=True)
class ListedPlace:
    """What the lobby knows of a session that the service's list may hold, too.

    Attributes:
        key: the session.
        where: where it is: never HERE.
        service_id: its id in the service, if that is another one.
        moving: the session as the lobby holds it while it is on its way; else None.
    """

    key: SessionKey
    where: Where
    service_id: str | None
    moving: SessionRecord | None


class PlaceStore(Part):
    """Reads where sessions are, and who works on them."""

    @operation(writes=False)
    def place(self, key: SessionKey) -> Asking[Place]:
        """Return where a session is, and who works on it."""
        return _place((yield from only("place", key)))

    @operation(writes=False)
    def overdue(self, limit: int) -> Asking[Sequence[SessionKey]]:
        """Return at most `limit` sessions that somebody has left on their way."""
        return [key_of(row) for row in (yield from rows("overdue", limit=limit))]

    @operation(writes=False)
    def time_to_overdue(self) -> Asking[timedelta | None]:
        """Return how long the nearest lease lasts; None if nothing is on its way."""
        row = yield from only("time_to_overdue")
        left: timedelta | None = row["lease_left"]
        return left

    @operation(writes=False)
    def lobby(
        self, app_name: str, user_id: str | None
    ) -> Asking[tuple[Sequence[SessionRecord], Sequence[ListedPlace]]]:
        """Return the living sessions that this store lists, and the places of `places`."""
        key = SessionKey(app_name, user_id or "", "")
        name = "list_of_app" if user_id is None else "list_of_user"
        living: Sequence[SessionRecord] = yield from native(name, key)
        return living, (yield from _places(app_name, user_id))

    @operation(writes=False)
    def places(self, app_name: str, user_id: str | None) -> Asking[Sequence[ListedPlace]]:
        """Return the places that correct a list of the service's sessions.

        These are the places of the sessions that are in the lobby or on their way, and of those
        whose id is another one in the service. Without a user, they are those of the whole app.
        """
        return (yield from _places(app_name, user_id))

    @operation(writes=False)
    def records(self, app_name: str, user_id: str) -> Asking[tuple[datetime, Sequence[Lifecycle]]]:
        """Return the records of a user's sessions in the service, and the store's time."""
        found = yield from rows("records_elsewhere", SessionKey(app_name, user_id, ""))
        records = [lifecycle_of(row, self.rules) for row in found if row["status"] is not None]
        return found[0]["now"], records

    @operation(writes=False)
    def has_elsewhere(self) -> Asking[bool]:
        """Return whether another service holds any session of this lobby, or will."""
        return bool((yield from only("has_elsewhere"))["found"])


def _places(app_name: str, user_id: str | None) -> Asking[Sequence[ListedPlace]]:
    name = "places_of_app" if user_id is None else "places_of_user"
    found = yield from rows(name, SessionKey(app_name, user_id or "", ""))
    return [_listed(app_name, row) for row in found]


def _place(row: Row) -> Place:
    where = where_of(row["status"], is_stored=bool(row["is_stored"]))
    token = None if row["mark"] is None else Token(row["mark"], row["fence"])
    return Place(where, token, row["service_id"], row["lease_left"] or timedelta(0))


def _listed(app_name: str, row: Row) -> ListedPlace:
    key = SessionKey(app_name, row["user_id"], row["session_id"])
    where = where_of(row["status"], is_stored=False)
    moving = None
    if where is Where.MOVING:
        revision = Revision(row["update_time"], row["revision"])
        moving = SessionRecord(key, json.loads(row["state"]), revision)
    return ListedPlace(key, where, row["service_id"], moving)
