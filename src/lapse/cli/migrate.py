"""`lapse migrate`: Lapse's tables are brought up to date, and ADK's from version 0 to version 1."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lapse.cli.adoption import YesOption
from lapse.cli.command import (
    JsonOption,
    QuietOption,
    StoreOption,
    check_conversations,
    open_settings,
    open_store,
    print_json,
    run_async,
)
from lapse.cli.progress import progress_bar, waiting
from lapse.core.errors import InvalidValueError, StoreRefusedError
from lapse.core.numbers import sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lapse.databases.v0.migrate import Converted, Plan
    from lapse.databases.v0.place import Place
    from lapse.databases.v0.undo import Changed
    from lapse.settings import Settings
    from lapse.store.database import Database

_AFTER: Final = (
    "the old tables are kept as lapse_v0_…: `lapse migrate --undo-v0` puts them back, "
    "`lapse migrate --drop-v0` drops them"
)


def migrate(
    store: StoreOption = None,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the SQL instead of running it.")
    ] = False,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="Give this PostgreSQL role what a server needs on the tables, and no more.",
        ),
    ] = None,
    from_v0: Annotated[
        bool,
        typer.Option(
            "--from-v0",
            help="First migrate ADK's tables from its version 0 (before ADK 1.22), in place. "
            "If it is stopped, call it again to continue.",
        ),
    ] = False,
    undo_v0: Annotated[
        bool, typer.Option("--undo-v0", help="Put the tables of version 0 back as they were.")
    ] = False,
    drop_v0: Annotated[
        bool,
        typer.Option("--drop-v0", help="Drop the tables of version 0 that were kept, for good."),
    ] = False,
    time_zone: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="With --from-v0: the time zone of the servers that wrote the events.",
        ),
    ] = "UTC",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="With --from-v0: read all, print what would be done, change nothing."
        ),
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Create or upgrade a store's tables, for servers whose database role may not do that."""
    of_v0 = from_v0 + undo_v0 + drop_v0
    if of_v0 > 1 or (of_v0 and print_only):
        raise typer.BadParameter("give only one of --from-v0, --undo-v0, --drop-v0 and --print")
    if not of_v0 and (yes or as_json or quiet):
        raise typer.BadParameter("--yes, --json and --quiet need --from-v0, --undo-v0 or --drop-v0")
    if not from_v0 and (dry_run or time_zone != "UTC"):
        raise typer.BadParameter("--dry-run and --time-zone need --from-v0")
    if of_v0 and quiet and (as_json or dry_run or not yes):
        raise typer.BadParameter("--quiet needs --yes, and excludes --dry-run and --json")
    settings = open_settings(store, verbose=False, quiet=quiet)
    if of_v0:
        _check_role(settings, role)
        of_version_0 = _OfVersion0(settings, yes=yes, as_json=as_json, quiet=quiet)
        if undo_v0:
            of_version_0.undo()
        elif drop_v0:
            of_version_0.drop()
        elif dry_run:
            of_version_0.rehearse(time_zone)
        else:
            of_version_0.migrate(time_zone)
            run_async(_migrate(open_store(settings), print_only=False, role=role, quiet=True))
        return
    run_async(_migrate(open_store(settings), print_only=print_only, role=role))


class _OfVersion0:
    """The commands for ADK's version 0: they ask, and tell what they did."""

    def __init__(self, settings: Settings, *, yes: bool, as_json: bool, quiet: bool) -> None:
        from lapse.databases.v0.places import place_from_url

        check_conversations(settings, "migrate --from-v0")
        self._place: Place = place_from_url(settings.store_url)
        self._yes, self._as_json, self._quiet = yes, as_json, quiet

    def migrate(self, zone: str) -> None:
        """Migrate ADK's tables, if they are of version 0."""
        from lapse.databases.v0 import migrate as work

        plan = self._plan(zone)
        if not plan.is_old:
            self._tell({"migrated": False}, "nothing to migrate: ADK's tables are of version 1")
            return
        if not (self._as_json or self._quiet):
            typer.echo(_told(plan, self._place))
        self._ask(f"Migrate {sessions(plan.rows['sessions'])}? No server may use them meanwhile")
        done = run_async(work.migrate(self._place, zone, self._bars(plan.total)))
        self._tell({"migrated": True, "tables": _tables(done)}, _migrated(done))

    def rehearse(self, zone: str) -> None:
        """Read all, and tell what a migration would do, and what would stop it."""
        from lapse.databases.v0 import migrate as work

        plan = self._plan(zone)
        problems: Sequence[str] = ()
        if plan.is_old:
            problems = run_async(work.rehearse(self._place, zone, self._bars(plan.total)))
        else:
            self._tell({"dryRun": True, "tables": {}, "problems": []}, "nothing to migrate")
            return
        self._tell(
            {"dryRun": True, "tables": dict(plan.rows), "problems": list(problems)},
            _told(plan, self._place),
        )
        if problems:
            raise StoreRefusedError(
                f"{self._place.name}: cannot be migrated; change or delete these rows first:\n"
                + "\n".join(f"  {problem}" for problem in problems)
            )

    def undo(self) -> None:
        """Put the old tables back."""
        from lapse.databases.v0 import undo as work

        changed = run_async(work.undoing(self._place, self._bars(None)))
        if not (self._as_json or self._quiet):
            typer.echo(f"the tables of version 0 would be back in {self._place.name}")
            if changed:
                typer.echo(f"{_changes(changed)}; that would be set aside as lapse_undone_…")
        self._ask("Undo the migration? No server may use the tables meanwhile")
        changed = run_async(work.undo(self._place, self._bars(None)))
        sentence = "the tables of version 0 are back"
        if changed:
            sentence += f"; {_changes(changed)}, and is kept in the tables lapse_undone_…"
        self._tell({"undone": True, "setAside": [one.table for one in changed]}, sentence)

    def drop(self) -> None:
        """Drop the old tables."""
        from lapse.databases.v0 import undo as work
        from lapse.databases.v0.migrate import examine

        found = run_async(examine(self._place))
        if found.is_kept and not (self._as_json or self._quiet):
            typer.echo(f"the old tables lapse_v0_… of {self._place.name} would be dropped")
        if found.is_kept:
            self._ask("Drop them? Then there is no way back to version 0")
        run_async(work.drop(self._place))
        self._tell({"dropped": True}, "the old tables are dropped")

    def _plan(self, zone: str) -> Plan:
        from lapse.databases.v0.migrate import examine, zone_of

        zone_of(zone)
        return run_async(examine(self._place))

    def _ask(self, question: str) -> None:
        if not self._yes:
            typer.confirm(question, abort=True, err=True)

    def _tell(self, document: dict[str, Any], sentence: str) -> None:
        if self._as_json:
            print_json(document)
        elif not self._quiet:
            typer.echo(sentence)

    def _bars(
        self, total: int | None
    ) -> Callable[[str], AbstractContextManager[Callable[[int], None]]]:
        return lambda title: progress_bar(title, total, quiet=self._quiet)


def _told(plan: Plan, place: Place) -> str:
    rows = ", ".join(f"{number:,} of {name}" for name, number in plan.rows.items())
    lines = [
        f"ADK's tables of version 0 in {place.name} would become those of version 1:",
        f"  {rows}",
        "  the old tables would be kept as lapse_v0_…",
    ]
    if plan.is_begun:
        lines.append("  a migration was begun, and goes on")
    if plan.others:
        lines.append(f"  {plan.others} other connections are open: stop the servers first")
    return "\n".join(lines)


def _migrated(done: Sequence[Converted]) -> str:
    lines = [
        f"{one.table}: {one.rows - one.orphans:,} rows, checksum {one.checksum[:16]} on both sides"
        for one in done
    ]
    orphans = sum(one.orphans for one in done)
    if orphans:
        lines.append(
            f"{orphans:,} events were left in the old table: their sessions are deleted, and "
            "nobody could read them"
        )
    return "\n".join([*lines, _AFTER])


def _tables(done: Sequence[Converted]) -> dict[str, Any]:
    return {
        one.table: {
            "rows": one.rows - one.orphans,
            "leftOut": one.orphans,
            "checksum": one.checksum,
        }
        for one in done
    }


def _changes(changed: Sequence[Changed]) -> str:
    tables = ", ".join(f"{one.table} {one.then:,} → {one.now:,} rows" for one in changed)
    return f"tables were written to since the migration ({tables})"


def _check_role(settings: Settings, role: str | None) -> None:
    if role is not None and settings.store_url.startswith("sqlite"):
        raise InvalidValueError("--role", "is for PostgreSQL: SQLite has no roles")


async def _migrate(
    store: Database, *, print_only: bool, role: str | None, quiet: bool = False
) -> None:
    from lapse.store.sqlite.database import SqliteDatabase

    if role is not None and isinstance(store, SqliteDatabase):
        raise InvalidValueError("--role", "is for PostgreSQL: SQLite has no roles")
    try:
        script = (await store.inspect()).script
        if print_only:
            typer.echo(script, nl=False)
        else:
            with waiting("bringing the tables up to date", quiet=quiet):
                await store.open()
            if not quiet:
                typer.echo("the tables were brought up to date" if script else "nothing to do")
        if role is not None:
            from lapse.store.postgres.database import PostgresDatabase
            from lapse.store.postgres.grants import grants_to

            if print_only:
                typer.echo(grants_to(role), nl=False)
            else:
                assert isinstance(store, PostgresDatabase), "every other store has no roles"
                await store.grant_to(role)
                if not quiet:
                    typer.echo(f"the role {role} may work on the tables")
    finally:
        await store.close()
