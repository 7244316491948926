"""How the sessions of a query are found by page: the index, the cursor, and the filters."""

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
from lapse.core.lifecycle import OnItsWay, Status, status_of

if TYPE_CHECKING:
    from lapse.overview.store import Query

MAX_EXAMINED: Final = 500
"""At most this many records are examined for one page."""

LARGEST_PAGE: Final = 500

_LARGEST_MOMENT: Final = 253_402_300_799_999_999
"""The last microsecond that a datetime can hold, since the epoch."""

_NO_KEY: Final = SessionKey("", "", "")
_LAST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


class Way(StrEnum):
    """The ways to find sessions, each along one index and in the order of that index.

    WAITING is in the order of deadlines, EXPIRED in the order of purges, and BY_ID in the order of
    session ids. The others are in the order of keys.
    """

    WAITING = "waiting"
    EXPIRED = "expired"
    USED = "used"
    USED_OF_APP = "used_of_app"
    ARCHIVED = "archived"
    ANY = "any"
    OF_APP = "of_app"
    OF_USER = "of_user"
    BY_ID = "by_id"

    @classmethod
    def of(cls, query: Query) -> Way:
        """Return the way that examines the fewest records that the query does not ask for."""
        if query.user_id is not None:
            return cls.OF_USER
        if query.prefix:
            return cls.BY_ID
        match query.status:
            case Status.WAITING | Status.EXPIRED | Status.ARCHIVED:
                return cls(query.status)
            case Status.USED:
                return cls.USED if query.app_name is None else cls.USED_OF_APP
            case _:
                return cls.ANY if query.app_name is None else cls.OF_APP


_OF_ALL_APPS: Final = frozenset({Way.WAITING, Way.EXPIRED, Way.BY_ID, Way.ARCHIVED})
"""The ways that examine the sessions of all apps."""


@dataclass(frozen=True, slots=True)
class PageCursor:
    """The end of a page: the next page begins after this record.

    Attributes:
        key: the key of the last record of the page.
        moment: its deadline or time of purge in microseconds since the epoch, if the page is in
            that order; otherwise 0.
    """

    key: SessionKey = _NO_KEY
    moment: int = 0

    @classmethod
    def of(cls, row: Any, moment: int) -> PageCursor:
        """Return the cursor of a page that ends with this row."""
        return cls(SessionKey(row["app_name"], row["user_id"], row["session_id"]), moment)

    def text(self, query: Query) -> str:
        """Return the text for `Query.after`; a query with other filters refuses it."""
        document = json.dumps([_digest(query), self.moment, *self.key], separators=(",", ":"))
        return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, query: Query) -> PageCursor:
        """Return the cursor in `query.after`; the beginning if that is None.

        Raises:
            InvalidValueError: `after` is not the `next` of a page with the same filters.
        """
        if query.after is None:
            return cls()
        try:
            text = query.after + "=" * (-len(query.after) % 4)
            digest, moment, *key = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
        except (ValueError, TypeError, binascii.Error, RecursionError) as error:
            raise _bad_cursor() from error
        known = len(key) == len(SessionKey._fields) and all(
            isinstance(part, str) and can_be_stored(part) for part in key
        )
        # Not isinstance: a bool is an int.
        if not known or digest != _digest(query) or type(moment) is not int:
            raise _bad_cursor()
        if not 0 <= moment <= _LARGEST_MOMENT:
            raise _bad_cursor()
        return cls(SessionKey(*key), moment)


def _digest(query: Query) -> str:
    filters = [query.status, query.app_name, query.user_id, query.prefix]
    return blake2b(json.dumps(filters).encode(), digest_size=6).hexdigest()


def _bad_cursor() -> InvalidValueError:
    return InvalidValueError("after", "must be the `next` of a page with the same filters")


def can_be_stored(text: str) -> bool:
    """Return whether this text can be a part of a session's key."""
    return (
        len(text) <= LONGEST_ID
        and "\0" not in text
        and not any("\ud800" <= c <= "\udfff" for c in text)
    )


def finds_nothing(query: Query) -> bool:
    """Return whether no stored session can fit the query, so that the store need not be asked.

    Raises:
        InvalidValueError: the size of the page is not 1 to LARGEST_PAGE.
    """
    if not 1 <= query.size <= LARGEST_PAGE:
        raise InvalidValueError("size", f"must be 1 to {LARGEST_PAGE}, not {query.size}")
    asked = (query.app_name, query.user_id, query.prefix)
    return query.status is Status.ORPHAN or any(
        text is not None and not can_be_stored(text) for text in asked
    )


def prefix_end(prefix: str) -> str:
    """Return the least text, by code points, that is greater than every id with this prefix.

    If the prefix is empty or has only the last code point, there is no such text: the result is
    then a text that is greater than every id.
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
    """Return whether an examined row passes the filters that the index does not cover."""
    stored = row["status"]
    return (
        stored != OnItsWay.DELETING
        and (query.status is None or status_of(stored) is query.status)
        and (query.app_name is None or row["app_name"] == query.app_name)
        and (not query.prefix or row["session_id"].startswith(query.prefix))
    )


def most_examined(query: Query) -> int:
    """Return how many records to examine: a page and one more if every one of them must fit."""
    way = Way.of(query)
    statuses = {Way.WAITING, Way.EXPIRED, Way.USED, Way.USED_OF_APP, Way.ARCHIVED}
    all_fit = (
        (query.status is None or way in statuses)
        and (query.app_name is None or way not in _OF_ALL_APPS)
        and (not query.prefix or way is Way.BY_ID)
    )
    return query.size + 1 if all_fit else MAX_EXAMINED


def next_after(query: Query, fitting: Sequence[Any], last: Any | None) -> Any | None:
    """Return the row after which the next page begins; None if there is no next page.

    Args:
        query: the query.
        fitting: the rows that fit, in order; one more than `query.size` if there are more.
        last: the last examined row; None if no record follows it.
    """
    return fitting[query.size - 1] if len(fitting) > query.size else last


def statement_parameters(query: Query) -> dict[str, Any]:
    """Return the parameters that the statements of all ways share, all but the moment."""
    after = PageCursor.read(query).key
    if Way.of(query) is Way.BY_ID and after.session_id < (query.prefix or ""):
        # Start at the prefix: with a second lower bound in the statement, the index would be read
        # from its beginning.
        after = SessionKey("", "", query.prefix or "")
    return {
        "after_app": after.app_name,
        "after_user": after.user_id,
        "after_session": after.session_id,
        "only_app": query.app_name,
        "only_user": query.user_id,
        "prefix": query.prefix or "",
        "prefix_end": prefix_end(query.prefix or ""),
        "most": most_examined(query),
    }
