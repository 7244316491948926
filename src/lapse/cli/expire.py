"""`lapse resurrect` and `lapse expire`: change one session by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import typer

from lapse.cli.command import (
    JsonOption,
    StoreOption,
    acting_as,
    open_settings,
    print_json,
    ready_store,
    run_async,
)
from lapse.cli.keys import KeyArgument, find_key, shown

if TYPE_CHECKING:
    from lapse.core.keys import SessionKey
    from lapse.core.lifecycle import Lifecycle
    from lapse.settings import Settings
    from lapse.store.database import Database
    from lapse.store.records import Result


def resurrect(key: KeyArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Resurrect an expired session with a fresh TTL; a living session stays as it is."""
    from lapse.core.lifecycle import Cause
    from lapse.store.sessions import Sessions

    async def change(store: Database, key: SessionKey) -> Result[Lifecycle]:
        return await Sessions(store).resurrect(key, cause=Cause.REQUEST, by=acting_as())

    _change(open_settings(store, verbose=False), key, change, as_json=as_json)


def expire(key: KeyArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Expire a waiting session now; it can be restored as if its deadline had passed."""
    from lapse.store.sessions import Sessions

    async def change(store: Database, key: SessionKey) -> Result[Lifecycle]:
        return await Sessions(store).expire(key, by=acting_as())

    _change(open_settings(store, verbose=False), key, change, as_json=as_json)


def _change(
    settings: Settings,
    text: str,
    change: Callable[[Database, SessionKey], Awaitable[Result[Lifecycle]]],
    *,
    as_json: bool,
) -> None:
    from lapse.core.clock import utc_now
    from lapse.overview.json import record_json

    key, outcome = run_async(_changed(settings, text, change))
    if as_json:
        session = record_json(outcome.value, utc_now())
        print_json({"changed": bool(outcome.changes), "session": session})
        return
    done = "nothing to do: it is" if not outcome.changes else "it is"
    typer.echo(f"{shown(key)}: {done} {outcome.value.status}")


async def _changed(
    settings: Settings,
    text: str,
    change: Callable[[Database, SessionKey], Awaitable[Result[Lifecycle]]],
) -> tuple[SessionKey, Result[Lifecycle]]:
    from lapse.notices.announcements import Announcements
    from lapse.telemetry.logs import log_change

    async with ready_store(settings) as store:
        key = await find_key(store, text)
        outcome = await change(store, key)
        if outcome.changes:
            for committed in outcome.changes:
                log_change(committed)
            await Announcements(store).announce([key])
        return key, outcome
