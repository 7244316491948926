"""Which database a URL names, for a migration from version 0."""

from __future__ import annotations

from lapse.core.errors import InvalidValueError
from lapse.databases.v0.place import Place
from lapse.store.urls import MEMORY


def place_from_url(url: str) -> Place:
    """Return the database that a store's URL names.

    Raises:
        InvalidValueError: it names none that can be migrated in place.
    """
    scheme, _, rest = url.partition("://")
    path = rest.partition("?")[0].removeprefix("/")
    match scheme.partition("+")[0]:
        case "sqlite" if rest.startswith("/") and path != MEMORY:
            from lapse.databases.v0.sqlite import SqlitePlace

            return SqlitePlace(path)
        case "postgresql" | "postgres":
            from lapse.databases.v0.postgres import PostgresPlace

            return PostgresPlace(url)
        case _:
            raise InvalidValueError(
                "store URL",
                "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE; from other "
                "databases, `adk migrate session` copies into one of these",
            )
