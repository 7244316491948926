"""Where to look for the sessions of a query, and where a page ended."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from lapse.core.errors import InvalidValueError
from lapse.core.keys import LONGEST_ID, SessionKey
from lapse.core.lifecycle import Status

if TYPE_CHECKING:
    from lapse.overview.store import Query

EXAMINED: Final = 500
"""How many records are looked at for one page, at most."""

LARGEST_PAGE: Final = 500

_LARGEST_MOMENT: Final = 253_402_300_799_999_999
"""The last microsecond that a datetime can name."""

_NO_KEY: Final = SessionKey("", "", "")
_LAST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


class Way(StrEnum):
    """The ways to look for sessions, each along one index and in its order."""

    WAITING = "waiting"
    """The nearest deadline first."""
    EXPIRED = "expired"
    """Those that are purged next first."""
    USED = "used"
    USED_OF_APP = "used_of_app"
    ANY = "any"
    OF_APP = "of_app"
    OF_USER = "of_user"
    BY_ID = "by_id"
    """By session id first; all others that have no moment, by key."""

    @classmethod
    def of(cls, query: Query) -> Way:
        """Return the way that meets the fewest records that do not fit."""
        if query.user_id is not None:
            return cls.OF_USER
        if query.prefix:
            return cls.BY_ID
        match query.status:
            case Status.WAITING:
                return cls.WAITING
            case Status.EXPIRED:
                return cls.EXPIRED
            case Status.USED:
                return cls.USED if query.app_name is None else cls.USED_OF_APP
            case _:
                return cls.ANY if query.app_name is None else cls.OF_APP


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended.

    Attributes:
        key: that of the last record.
        moment: that of the last record in microseconds, where the order is one of moments.
    """

    key: SessionKey = _NO_KEY
    moment: int = 0

    @classmethod
    def of(cls, row: Any, moment: int) -> Place:
        """Return the place of a row."""
        return cls(SessionKey(row["app_name"], row["user_id"], row["session_id"]), moment)

    def text(self, query: Query) -> str:
        """Return it as the cursor of a query."""
        document = json.dumps([_digest(query), self.moment, *self.key], separators=(",", ":"))
        return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, query: Query) -> Place:
        """Read where the page of a query is to begin.

        Raises:
            InvalidValueError: it is no place where a page of this query ended.
        """
        if query.after is None:
            return cls()
        try:
            text = query.after + "=" * (-len(query.after) % 4)
            digest, moment, *key = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
        except (ValueError, TypeError, binascii.Error, RecursionError) as error:
            raise _no_place() from error
        known = len(key) == len(SessionKey._fields) and all(
            isinstance(part, str) and can_be_stored(part) for part in key
        )
        # Not isinstance: a bool is an int.
        if not known or digest != _digest(query) or type(moment) is not int:
            raise _no_place()
        if not 0 <= moment <= _LARGEST_MOMENT:
            raise _no_place()
        return cls(SessionKey(*key), moment)


def _digest(query: Query) -> str:
    filters = [query.status, query.app_name, query.user_id, query.prefix]
    return blake2b(json.dumps(filters).encode(), digest_size=6).hexdigest()


def _no_place() -> InvalidValueError:
    return InvalidValueError("after", "is no place where a page of this query ended")


def can_be_stored(text: str) -> bool:
    """Return whether a part of a key can be this text."""
    return (
        len(text) <= LONGEST_ID
        and "\0" not in text
        and not any("\ud800" <= c <= "\udfff" for c in text)
    )


def finds_nothing(query: Query) -> bool:
    """Return whether no session can fit, so that no store need be asked.

    Raises:
        InvalidValueError: the size of the page is not 1 to LARGEST_PAGE.
    """
    if not 1 <= query.size <= LARGEST_PAGE:
        raise InvalidValueError("size", f"must be 1 to {LARGEST_PAGE}, not {query.size}")
    asked = (query.app_name, query.user_id, query.prefix)
    return query.status is Status.ORPHAN or any(
        text is not None and not can_be_stored(text) for text in asked
    )


def end_of(prefix: str) -> str:
    """Return the first text, by its characters' numbers, behind all that begin with `prefix`.

    Behind the last character of all there is none: it is then one that no id can come after.
    """
    while prefix:
        number = ord(prefix[-1]) + 1
        if number in _SURROGATES:
            number = _SURROGATES.stop
        prefix = prefix[:-1]
        if number <= _LAST_CHARACTER:
            return prefix + chr(number)
    return chr(_LAST_CHARACTER) * (LONGEST_ID + 1)


def fits(query: Query, row: Any) -> bool:
    """Return whether a row that a way has met is one that the query asks for."""
    return (
        (query.status is None or row["status"] == query.status)
        and (query.app_name is None or row["app_name"] == query.app_name)
        and (not query.prefix or row["session_id"].startswith(query.prefix))
    )


def most_examined(query: Query) -> int:
    """Return how many records are worth a look: no more than a page where all must fit."""
    way = Way.of(query)
    statuses = {Way.WAITING, Way.EXPIRED, Way.USED, Way.USED_OF_APP}
    all_fit = (
        (query.status is None or way in statuses)
        and (query.app_name is None or way not in {Way.WAITING, Way.EXPIRED, Way.BY_ID})
        and (not query.prefix or way is Way.BY_ID)
    )
    return query.size + 1 if all_fit else EXAMINED


def next_after(query: Query, fitting: Sequence[Any], last: Any | None) -> Any | None:
    """Return the row that the next page begins after; None at the end.

    Args:
        query: what is asked for.
        fitting: the rows that fit, one more than are shown where there are so many.
        last: the last row examined, where there may be more behind it.
    """
    return fitting[query.size - 1] if len(fitting) > query.size else last


def bounds(query: Query) -> dict[str, Any]:
    """Return the parameters of the statements of all ways, but for the moment to begin after."""
    after = Place.read(query).key
    if Way.of(query) is Way.BY_ID and after.session_id < (query.prefix or ""):
        # Where the prefix begins: a second bound in the statement would not be where to start.
        after = SessionKey("", "", query.prefix or "")
    return {
        "after_app": after.app_name,
        "after_user": after.user_id,
        "after_session": after.session_id,
        "only_app": query.app_name,
        "only_user": query.user_id,
        "prefix": query.prefix or "",
        "prefix_end": end_of(query.prefix or ""),
        "most": most_examined(query),
    }
