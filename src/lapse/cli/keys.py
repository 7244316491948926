"""The argument KEY, which names a session on the command line."""

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
        "id, if only one id begins so.",
    ),
]

_SHOWN: Final = 5
_AS_IT_IS: Final = "@:+,;=!$&'()*~ "


def shown(key: SessionKey) -> str:
    """Return a key as text that `find_key` accepts."""
    return "/".join(shown_part(part) for part in key)


def shown_part(text: str) -> str:
    """Return a part of a key, percent-encoded: without slashes and control characters."""
    return quote(text, safe=_AS_IT_IS)


async def find_key(store: Database, text: str) -> SessionKey:
    """Return the key that the argument KEY names.

    Raises:
        typer.BadParameter: the text is not a key, or the ids of several sessions begin with it.
        NoSuchSessionError: no session's id begins with it.
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
    """Return the only session whose id is `prefix`, else the only one whose id begins with it."""
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
    # Sessions are in the order of ids, so those whose id is the prefix itself come first.
    exact = [key for key in found if key.session_id == prefix]
    match exact or found:
        case [key]:
            return key
        case []:
            raise NoSuchSessionError(
                f"no session's id begins with {prefix[:8]!r}; name a session that is only in ADK's "
                "tables in full, APP/USER/SESSION"
            )
        case several:
            listed = "".join(f"\n  {shown(key)}" for key in several[:_SHOWN])
            more = "\n  …" if len(several) > _SHOWN else ""
            raise typer.BadParameter(
                f"KEY: the ids of several sessions begin with {prefix!r}; name one:{listed}{more}"
            )
