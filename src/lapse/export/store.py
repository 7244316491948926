"""The reads of an export from a store, and the writes of an import."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from lapse.core.errors import LapseError
from lapse.core.keys import SessionKey
from lapse.export.places import Place, Values, line_of, parameter_of
from lapse.store.operation import Asking, Part, apart, dialect, only, operation, rows

_SHOWN: Final = 5
"""How many of the rows that exist already an error names."""

Pages = Callable[[], Iterable[tuple[Place, Sequence[Values]]]]
"""Makes an iterator over the rows of an import, place by place."""


class AlreadyStoredError(LapseError):
    """Some of the import exists in the store already; nothing was imported."""

    def __init__(self, names: Sequence[str]) -> None:
        shown = ", ".join(repr(name) for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        super().__init__(
            f"exists already: {shown}{more}; an import changes nothing that is there, so erase or "
            "delete it first, or import into another store"
        )
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended; the default is before the first."""

    id: str = ""
    at: datetime = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Lines of a place's file, and where they end; None: there are no more."""

    lines: Sequence[bytes]
    next: Cursor | None


class ExportStore(Part):
    """Reads what a store keeps of a user; it is to be made with a snapshot."""

    @operation(writes=False)
    def apps_of(self, user_id: str) -> Asking[Sequence[str]]:
        """Return the apps in which something is kept of a user."""
        found = yield from rows("apps_of_user", SessionKey("", user_id, ""))
        return [row["app_name"] for row in found]

    @operation(writes=False)
    def is_elsewhere(self, app_name: str, user_id: str) -> Asking[bool]:
        """Return whether another session service has sessions of a user, or is about to."""
        row = yield from only("is_elsewhere", SessionKey(app_name, user_id, ""))
        return bool(row["is_elsewhere"])

    @operation(writes=False)
    def ids(self, app_name: str, user_id: str, *, after: str, limit: int) -> Asking[Sequence[str]]:
        """Return the next ids of a user's sessions of any status."""
        key = SessionKey(app_name, user_id, "")
        found = yield from rows("ids_of_user", key, after_id=after, limit=limit)
        return [row["session_id"] for row in found]

    @operation(writes=False)
    def page(self, place: Place, key: SessionKey, after: Cursor, *, limit: int) -> Asking[Page]:
        """Return the next lines of a place: of a session, or of all of a user's in an app."""
        spoken = yield from dialect()
        found = yield from rows(
            f"export_{place.name}", key, after=after.at, after_id=after.id, limit=limit
        )
        lines = [line_of(place, row, spoken) for row in found]
        if len(found) < limit:
            return Page(lines, None)
        last = found[-1]
        if place.of_session:
            return Page(lines, Cursor(last["id"], last["timestamp"]))
        names = [name for name, _ in place.columns]
        name = next((one for one in ("run_id", "id", "session_id") if one in names), None)
        return Page(lines, None if name is None else Cursor(last[name]))


class ImportStore(Part):
    """Writes what an export has read."""

    @operation(writes=False)
    def existing(self, place: Place, found: Sequence[Values]) -> Asking[Sequence[str]]:
        """Return the names of those rows that the store has already."""
        if place.existing is None or not found:
            return []
        statement, columns = place.existing
        names = [name for name, _ in place.columns]
        where = [names.index(column) for column in columns]
        asked = Place(place.name, tuple(place.columns[index] for index in where))
        keys = [[row[index] for index in where] for row in found]
        spoken = yield from dialect()
        answer = yield from rows(statement, imported=parameter_of(asked, keys, spoken))
        return [row["name"] for row in answer]

    @operation(together=True)
    def put(self, pages: Pages) -> Asking[Mapping[str, int]]:
        """Write all rows in one transaction; return how many each place has.

        A repeat is recognised by its rows, none of which is new.

        Raises:
            AlreadyStoredError: a row exists already; nothing was written.
        """
        spoken = yield from dialect()
        written: Counter[str] = Counter()
        levels: Counter[tuple[str, str]] = Counter()
        apps: set[str] = set()
        for place, found in pages():
            parameter = yield from apart(parameter_of, place, found, spoken)
            answer = yield from rows(f"import_{place.name}", imported=parameter)
            is_repeat = answer.in_doubt and not answer
            if len(answer) != len(found) and not is_repeat:
                raise AlreadyStoredError([f"{len(found) - len(answer)} rows of {place.file}"])
            written[place.name] += len(found)
            apps.update(row[place.key[0]] for row in found)
            if place.name == "lobby" and not is_repeat:
                levels.update((row[0], row[3]) for row in found)
        yield from rows("ensure_imported_app", imported=json.dumps([[app] for app in sorted(apps)]))
        yield from rows(
            "count_imported",
            imported=json.dumps([[*level, number] for level, number in levels.items()]),
        )
        return written
