"""The stores of sessions, and the function that makes one from its URL."""

from __future__ import annotations

from importlib.util import find_spec

from lapse.core.arguments import check
from lapse.core.errors import InvalidValueError
from lapse.core.lifecycle import Rules
from lapse.store.database import Database
from lapse.store.options import ConnectionOptions


def store_from_url(
    url: str, rules: Rules | None = None, options: ConnectionOptions | None = None
) -> Database:
    """Return the store that a URL names; it is not opened yet.

    `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:///:memory:` or
    `postgresql://USER:PASSWORD@HOST/DATABASE`; a driver suffix as SQLAlchemy has it
    (`sqlite+aiosqlite:`, `postgresql+asyncpg:`) is accepted.

    `options` say how to connect to a server; SQLite ignores them. What is not given is as `Rules()`
    and `ConnectionOptions()` have it, or in an application that Lapse is mounted in as its settings
    say.

    Raises:
        InvalidValueError: no store has such a URL.
    """
    check(url=(url, str), rules=(rules, Rules | None), options=(options, ConnectionOptions | None))
    scheme, separator, rest = url.partition("://")
    match scheme.partition("+")[0]:
        case "sqlite":
            if rest and not rest.startswith("/"):
                raise InvalidValueError(
                    "store URL", "must have three slashes after sqlite: sqlite:///FILE"
                )
            from lapse.store.sqlite import SqliteDatabase

            return SqliteDatabase(rest.partition("?")[0].removeprefix("/") or ":memory:", rules)
        case "postgresql" | "postgres":
            if find_spec("asyncpg") is None:
                reason = "needs PostgreSQL's driver: pip install 'lapse[postgres]'"
                raise InvalidValueError("store URL", reason)
            from lapse.store.postgres import PostgresDatabase

            return PostgresDatabase(url, rules, options)
        case _:
            reason = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
            # Without "://" the whole text counts as the scheme, and it may hold a password.
            given = f", not {scheme!r:.40}" if separator else ""
            raise InvalidValueError("store URL", reason + given)
