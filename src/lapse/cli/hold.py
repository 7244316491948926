"""`lapse hold`: holds, which keep sessions from sweeps and deletes until they are released."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from lapse.cli.command import (
    JsonOption,
    StoreOption,
    acting_as,
    check_conversations,
    narrow_table,
    open_settings,
    print_json,
    ready_store,
    run_async,
)
from lapse.cli.keys import find_key, shown

if TYPE_CHECKING:
    from lapse.core.keys import SessionKey
    from lapse.retention.exemptions import Hold
    from lapse.settings import Settings
    from lapse.store.database import Database

T = TypeVar("T")

hold_commands = typer.Typer(
    help="Holds: a session on hold is neither archived nor deleted.", no_args_is_help=True
)

OptionalKey = Annotated[
    str | None, typer.Argument(metavar="[KEY]", help="APP/USER/SESSION, or the beginning of an id.")
]
UserOption = Annotated[
    str | None,
    typer.Option("--user", help="All sessions of this user, those to come included."),
]
AppOption = Annotated[
    str | None, typer.Option("--app", help="With --user: only the sessions of this app.")
]

_EVERYTHING: Final = "all sessions"


@hold_commands.command("set")
def put(
    reason: Annotated[str, typer.Option("--reason", help="Why; it is shown with the hold.")],
    key: OptionalKey = None,
    user: UserOption = None,
    app_name: AppOption = None,
    store: StoreOption = None,
) -> None:
    """Put a session, or a user with all sessions to come, on hold."""
    from lapse.retention.exemptions import ExemptionStore

    async def work(database: Database) -> tuple[SessionKey, bool]:
        held = await _scope(database, key, user, app_name)
        done = await ExemptionStore(database).put_on_hold(held, reason=reason, by=acting_as())
        return held, done

    held, done = run_async(_with_store(_settings(store), work))
    typer.echo(f"{_named(held)}: {'on hold' if done else 'nothing to do: on hold already'}")


@hold_commands.command()
def release(
    key: OptionalKey = None,
    user: UserOption = None,
    app_name: AppOption = None,
    store: StoreOption = None,
) -> None:
    """Release the hold on exactly this session or user; other holds stay."""
    from lapse.retention.exemptions import ExemptionStore

    async def work(database: Database) -> tuple[SessionKey, bool]:
        held = await _scope(database, key, user, app_name)
        return held, await ExemptionStore(database).release_hold(held, by=acting_as())

    held, done = run_async(_with_store(_settings(store), work))
    typer.echo(f"{_named(held)}: {'released' if done else 'nothing to do: it is not on hold'}")


@hold_commands.command("list")
def list_holds(
    user: UserOption = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """List what is on hold, since when, by whom and why."""
    from lapse.core.clock import iso
    from lapse.retention.exemptions import ExemptionStore

    async def work(database: Database) -> list[Hold]:
        return list(await ExemptionStore(database).holds(user_id=user))

    found = run_async(_with_store(_settings(store), work))
    if as_json:
        from lapse.retention.json import hold_json

        print_json({"holds": [hold_json(one) for one in found]})
        return
    from rich.console import Console

    table = narrow_table("on hold", "since", "by", "reason", whole=("since",))
    for one in found:
        table.add_row(_named(one.key), iso(one.since)[:19] + "Z", one.by, one.reason)
    Console().print(table)


def _settings(store: str | None) -> Settings:
    settings = open_settings(store, verbose=False)
    check_conversations(settings, "hold")
    return settings


async def _with_store(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    async with ready_store(settings) as database:
        return await work(database)


async def _scope(
    database: Database, key: str | None, user: str | None, app_name: str | None
) -> SessionKey:
    from lapse.core.keys import SessionKey

    if (key is None) == (user is None):
        raise typer.BadParameter("name a session by its KEY, or a user by --user")
    if key is not None:
        if app_name is not None:
            raise typer.BadParameter("--app needs --user")
        return await find_key(database, key)
    return SessionKey(app_name or "", user or "", "")


def _named(key: SessionKey) -> str:
    if key.session_id:
        return shown(key)
    where = f" in {key.app_name}" if key.app_name else ""
    return f"{_EVERYTHING} of {key.user_id}{where}"
