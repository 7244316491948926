"""`lapse adopt` and `lapse undo`: the empty sessions of stock ADK go into the lobby, and back."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lapse.cli.command import (
    JsonOption,
    QuietOption,
    check_conversations,
    one_store,
    open_settings,
    open_store,
    print_json,
    ready_store,
    run_async,
)
from lapse.cli.databases import SameStoreOption, report_of
from lapse.cli.progress import progress_bar
from lapse.core.clock import iso
from lapse.core.errors import InvalidValueError, NotWithThisServiceError
from lapse.core.numbers import sessions

if TYPE_CHECKING:
    from lapse.adoption.store import Adoption, Selection
    from lapse.databases.report import Report
    from lapse.settings import Settings
    from lapse.store.database import Database

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_UNITS: Final = {"s": 1 / 60, "": 1, "m": 1, "h": 60, "d": 1440}
StoreArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="URL", help="sqlite:///FILE or postgresql://…; by default LAPSE_STORE_URL."
    ),
]
RateOption = Annotated[
    float | None, typer.Option(min=1, help="Maximum number of sessions per second.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def adopt(
    url: StoreArgument = None,
    app_name: Annotated[
        str | None, typer.Option("--app", help="Only sessions of this app.")
    ] = None,
    older_than: Annotated[
        str,
        typer.Option(metavar="AGE", help="Only sessions at least this old: 90s, 30m, 12h or 7d."),
    ] = "0m",
    with_state: Annotated[
        bool, typer.Option("--with-state", help="Also adopt sessions with state but no message.")
    ] = False,
    with_events: Annotated[
        bool, typer.Option("--with-events", help="Also adopt sessions with events but no message.")
    ] = False,
    with_agent_only: Annotated[
        bool,
        typer.Option(
            "--with-agent-only", help="Also adopt sessions in which only the agent spoke."
        ),
    ] = False,
    rate: RateOption = None,
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="Continue the run of this id, or start one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    store_url: SameStoreOption = None,
) -> None:
    """Move the empty sessions of ADK's tables into Lapse's lobby, to wait or to expire.

    If it is stopped, call it again to continue. `lapse undo` puts the sessions back.
    """
    from lapse.adoption.adopt import new_run
    from lapse.adoption.store import Selection

    if quiet and (dry_run or as_json or not yes):
        raise typer.BadParameter("--quiet needs --yes, and excludes --dry-run and --json")
    given = one_store(url, store_url)
    settings = open_settings(given, verbose=False, quiet=quiet)
    check_conversations(settings, "adopt")
    store = open_store(settings)
    selection = Selection(
        app_name,
        _span(older_than),
        with_state=with_state,
        with_events=with_events,
        with_agent_only=with_agent_only,
    )
    found = run_async(_examined(store, settings.store_url, settings.ttl, selection.older_than))
    records = run_async(_records(settings))
    plan = _plan(found, selection)
    if not (as_json or quiet):
        _tell_plan(plan, found, selection, settings, records)
    if dry_run:
        if as_json:
            print_json({"dryRun": True, **plan})
        return
    if not plan["adopted"]:
        if not quiet:
            _tell_nothing_to_adopt(run, as_json=as_json)
        return
    if not yes:
        typer.confirm(
            f"Adopt {sessions(plan['adopted'])}? No stock ADK server may use them meanwhile",
            abort=True,
            err=True,
        )
    run = run or new_run()
    if not quiet:
        typer.echo(f"run {run}", err=as_json)
    ahead = None if quiet else found.sessions_of(app_name)
    done = run_async(_adopt(store, selection, settings, run, rate, ahead=ahead))
    if not quiet:
        _tell_adopted(done, run, settings, given, as_json=as_json)


def _tell_nothing_to_adopt(run: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"run": run, "adopted": 0, "examined": 0, "waiting": 0, "expired": 0})
    else:
        typer.echo("nothing to adopt")


def _tell_adopted(
    done: Any, run: str, settings: Settings, given: str | None, *, as_json: bool
) -> None:
    if as_json:
        names = ("adopted", "examined", "waiting", "expired")
        print_json({"run": run, **{name: getattr(done, name) for name in names}})
        return
    typer.echo(
        f"adopted {done.adopted:,} of {sessions(done.examined)}: {done.waiting:,} wait, "
        f"{done.expired:,} are expired and restorable for {_hours(settings.horizon)}\n"
        f"to put them back: {_undo_command(given, run)}"
    )


def undo(
    url: StoreArgument = None,
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="The run to undo; without it, list the runs.")
    ] = None,
    rate: RateOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    store_url: SameStoreOption = None,
) -> None:
    """Put the sessions of an adoption back into ADK's tables unchanged.

    `--quiet` prints only how many sessions could not be put back, and why.
    """
    if quiet and (as_json or run is None):
        raise typer.BadParameter("--quiet needs --run, and excludes --json")
    given = one_store(url, store_url)
    settings = open_settings(given, verbose=False, quiet=quiet)
    check_conversations(settings, "undo")
    if run is None:
        run_async(_list_runs(settings, given, as_json=as_json))
        return
    from lapse.adoption.adopt import undo as undo_run
    from lapse.adoption.store import AdoptionStore
    from lapse.conversations.store import HandOverStore

    async def work() -> Any:
        async with ready_store(settings) as store:
            if await HandOverStore(store).has_elsewhere():
                raise NotWithThisServiceError(
                    "`lapse undo` puts sessions back into ADK's tables in the store, and used "
                    "sessions of this store live in another session service"
                )
            known = {adoption.run: adoption for adoption in await AdoptionStore(store).adoptions()}
            total = known[run].remaining if run in known else 0
            with progress_bar("putting back", total, quiet=quiet) as advance:
                return await undo_run(
                    store, run, rate=rate, on_progress=lambda done: advance(done.put_back)
                )

    done = run_async(work())
    if as_json:
        counts = {"putBack": done.put_back, "inTheWay": done.in_the_way}
        print_json({"run": run, **counts, "remaining": done.remaining, "gone": done.gone})
        return
    if not quiet:
        typer.echo(f"put back {sessions(done.put_back)}")
    for count, why in (
        (done.in_the_way, "stay in the lobby: ADK's tables have a session of the same key"),
        (done.remaining, "stay in the lobby: not restorable any more, or in use; try again"),
        (0 if quiet else done.gone, "had been put back, used, deleted or purged before"),
    ):
        if count:
            typer.echo(f"{count:,} {why}", err=quiet)


async def _examined(store: Database, url: str, ttl: timedelta, older_than: timedelta) -> Report:
    """Return the report of a database; raise before any question if it cannot be adopted."""
    from lapse.databases.tables import check_lobby

    await store.inspect()  # raises for a database that cannot be adopted
    found = await report_of(url, ttl, older_than=older_than)
    check_lobby(found.lobby, found.place)
    return found


async def _records(settings: Settings) -> int:
    """Return how many sessions Lapse has records of in a database; 0 if it is new to Lapse."""
    from lapse.sweep.store import SweepStore

    store = open_store(settings)
    try:
        found = await store.inspect()
        if found.version != found.newest:
            return 0
        return (await SweepStore(store).dues(most=1)).stored
    finally:
        await store.close()


def _brakes(expired: int, records: int, settings: Settings) -> bool:
    """Return whether the purge of all adopted sessions that are expired at once sets the brake."""
    if not settings.cleanup_enabled:
        return False
    return expired > settings.brakes.largest_purge(records)


def _when_braked(settings: Settings) -> str:
    if not settings.horizon:
        return "the next sweep sets it"
    return f"the sweep {_hours(settings.horizon)} after the adoption sets it"


def _span(text: str) -> timedelta:
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise InvalidValueError(
            "--older-than", f"must be an age like 90s, 30m, 12h or 7d, not {text!r:.40}"
        )
    try:
        return timedelta(minutes=float(found[1]) * _UNITS[found[2]])
    except OverflowError as error:
        raise InvalidValueError("--older-than", f"must be shorter than {text!r:.40}") from error


def _hours(horizon: timedelta) -> str:
    return f"{horizon / timedelta(hours=1):g} h"


def _plan(found: Report, selection: Selection) -> dict[str, int]:
    """Return how many sessions an adoption would move and leave, by the report."""
    from pydantic.alias_generators import to_camel

    from lapse.databases.report import Kind

    def count(kind: Kind, at_least: timedelta = timedelta(0)) -> int:
        return found.older_than(kind, max(at_least, selection.older_than), selection.app_name)

    kinds = [Kind.EMPTY]
    kinds += [Kind.WITH_STATE] * selection.with_state + [Kind.WITH_EVENTS] * selection.with_events
    kinds += [Kind.AGENT_ONLY] * selection.with_agent_only
    adopted = sum(map(count, kinds))
    expired = sum(count(kind, found.question.ttl) for kind in kinds)
    return {
        "adopted": adopted,
        "waiting": adopted - expired,
        "expired": expired,
        **{to_camel(kind): count(kind) for kind in Kind if kind not in {Kind.USED, Kind.EMPTY}},
    }


def _tell_plan(
    plan: dict[str, int], found: Report, selection: Selection, settings: Settings, records: int
) -> None:
    from lapse.databases.report_table import span

    ttl = span(found.question.ttl.total_seconds())
    typer.echo(
        f"{sessions(plan['adopted'])} of {found.place} would leave ADK's tables:\n"
        f"  {plan['waiting']:,} are younger than {ttl} and would wait in the lobby\n"
        f"  {plan['expired']:,} would be expired, restorable for {_hours(settings.horizon)}"
    )
    for name, taken, why in (
        ("withState", selection.with_state, "have state but no message: needs --with-state"),
        ("withEvents", selection.with_events, "have events but no message: needs --with-events"),
        ("agentOnly", selection.with_agent_only, "heard only the agent: needs --with-agent-only"),
        ("awaiting", False, "wait for an answer to a tool's call: never adopted"),
        ("evaluation", False, "belong to evaluations: never adopted"),
    ):
        if plan[name] and not taken:
            typer.echo(f"would stay in ADK's tables:\n  {plan[name]:,} {why}")
    if _brakes(plan["expired"], records + plan["adopted"], settings):
        typer.echo(
            f"the brake will hold their purge, as {plan['expired']:,} are more than "
            f"LAPSE_BRAKE_SHARE={settings.brake_share:g} of the {records + plan['adopted']:,} "
            f"records:\n  {_when_braked(settings)}; LapseBrakeSet fires then;\n"
            "  the brake ends an hour later, or with `lapse sweep --confirm`"
        )
    if not settings.horizon:
        typer.echo("  LAPSE_RESTORE_HOURS is 0: the next sweep deletes them; there is no undo")


async def _adopt(
    store: Database,
    selection: Selection,
    settings: Settings,
    run: str,
    rate: float | None,
    *,
    ahead: int | None,
) -> Any:
    """Adopt the selected sessions.

    `ahead` is how many the progress bar expects to examine; None: no bar is shown.
    """
    from lapse.adoption.adopt import adopt as adopt_all

    try:
        await store.open()
        with progress_bar("adopting", ahead, quiet=ahead is None) as advance:
            return await adopt_all(
                store,
                selection,
                run=run,
                ttl=settings.ttl,
                used_by=settings.used_by,
                rate=rate,
                on_progress=lambda done: advance(done.examined),
            )
    finally:
        await store.close()


def _run_json(run: Adoption) -> dict[str, Any]:

    return {
        "run": run.run,
        "beganAt": iso(run.began_at),
        "sessions": run.sessions,
        "remaining": run.remaining,
    }


def _undo_command(given: str | None, run: str) -> str:
    """Return the command that undoes a run of the store that a command was given, if it was."""
    from lapse.store.urls import without_password

    if given is None:
        return f"lapse undo --run {run}"
    shown = without_password(given)
    left_out = "" if shown == given else "  # with what is left out of the URL: its password"
    return f"lapse undo {shlex.quote(shown)} --run {run}{left_out}"


async def _list_runs(settings: Settings, given: str | None, *, as_json: bool) -> None:
    from lapse.adoption.store import AdoptionStore

    async with ready_store(settings) as store:
        found = await AdoptionStore(store).adoptions()
    if as_json:
        print_json({"runs": [_run_json(run) for run in found]})
        return
    for run in found:
        typer.echo(
            f"{run.run}: {run.sessions:,} adopted, {run.remaining:,} still in the lobby; "
            f"{_undo_command(given, run.run)}"
        )
    if not found:
        typer.echo("nothing was adopted in this database")
