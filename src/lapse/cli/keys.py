"""How a session is named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote, unquote

import typer

if TYPE_CHECKING:
    from lapse.core.keys import SessionKey
    from lapse.store.database import Database

KeyArgument = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="APP/USER/SESSION, with %2F for a slash in a part; or the beginning of a session's "
        "id, where no other one begins so.",
    ),
]

_SHOWN: Final = 5
_AS_IT_IS: Final = "@:+,;=!$&'()*~ "


def shown(key: SessionKey) -> str:
    """Return a key as `find_key` takes it."""
    return "/".join(shown_part(part) for part in key)


def shown_part(text: str) -> str:
    """Return a part of a key with nothing in it that a terminal would obey."""
    return quote(text, safe=_AS_IT_IS)


async def find_key(store: Database, text: str) -> SessionKey:
    """Return the key that somebody means by KEY.

    Raises:
        typer.BadParameter: it cannot be one, or several sessions' ids begin so.
        NoSuchSessionError: no session's id begins so.
    """
    from lapse.core.errors import InvalidValueError
    from lapse.core.keys import SessionKey, check_key

    parts = [unquote(part) for part in text.split("/")]
    match parts:
        case [app_name, user_id, session_id]:
            try:
                return check_key(SessionKey(app_name, user_id, session_id))
            except InvalidValueError as error:
                raise typer.BadParameter(f"KEY: {error}") from error
        case [prefix] if prefix:
            return await _only(store, prefix)
        case _:
            raise typer.BadParameter(
                f"KEY: {text!r} is neither APP/USER/SESSION nor the beginning of an id; write %2F "
                "for a slash in a part"
            )


async def _only(store: Database, prefix: str) -> SessionKey:
    """Return the one session whose id is `prefix`, or else begins so."""
    from lapse.core.errors import NoSuchSessionError
    from lapse.overview.store import OverviewStore, Query

    found: list[SessionKey] = []
    after: str | None = None
    while len(found) <= _SHOWN:
        page = await OverviewStore(store).find(Query(prefix=prefix, size=_SHOWN + 1, after=after))
        found += [record.key for record in page.records]
        after = page.next
        if after is None:
            break
    # In the order of ids: those that are the prefix itself come first.
    exact = [key for key in found if key.session_id == prefix]
    match exact or found:
        case [key]:
            return key
        case []:
            raise NoSuchSessionError(
                f"no session's id begins with {prefix[:8]!r}; one that is only in ADK's tables has "
                "to be named in full, APP/USER/SESSION"
            )
        case several:
            listed = "".join(f"\n  {shown(key)}" for key in several[:_SHOWN])
            more = "\n  …" if len(several) > _SHOWN else ""
            raise typer.BadParameter(
                f"KEY: several sessions are meant by {prefix!r}; name one:{listed}{more}"
            )
