"""The stores, by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapse.errors import InvalidValueError
from lapse.lifecycle import Rules

if TYPE_CHECKING:
    from lapse.store import Store


def store_from_url(url: str, rules: Rules = Rules()) -> Store:
    """Return the store that a URL names, not opened yet.

    `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite:///:memory:`; a driver suffix
    as SQLAlchemy has it (`sqlite+aiosqlite:`) is accepted.

    Raises:
        InvalidValueError: no store has such a URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] != "sqlite":
        raise InvalidValueError(
            "store URL",
            f"must be sqlite:///FILE, not {scheme!r:.40}; see the README for the stores",
        )
    path = rest.partition("?")[0].removeprefix("/")
    if not rest.startswith("/") and rest:
        raise InvalidValueError("store URL", "sqlite takes three slashes: sqlite:///FILE")

    from lapse.stores.sqlite import SqliteStore

    return SqliteStore(path or ":memory:", rules)
