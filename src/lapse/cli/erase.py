"""`lapse erase`: takes everything that is kept of a user out of all places."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapse.cli.adk_options import ArtifactUri, MemoryUri
from lapse.cli.command import (
    Exit,
    JsonOption,
    StoreOption,
    acting_as,
    fail,
    open_settings,
    print_json,
    ready_store,
    run_async,
)
from lapse.cli.export import AgentsOption, UserOption, artifact_service_of
from lapse.cli.progress import progress_bar, waiting
from lapse.core.errors import InvalidValueError

if TYPE_CHECKING:
    from lapse.adk.remembered import Memory
    from lapse.core.keys import SessionKey
    from lapse.erasure.erasing import Erasure, Receipt
    from lapse.erasure.services import OtherService
    from lapse.settings import Settings
    from lapse.store.database import Database

    Kept = tuple[Any, Callable[[str], bool]] | None
    """What keeps artifacts, and whether it has those of an app; None: not known."""


def erase(
    user: UserOption,
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase, for good; without it, only count.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be erased: the same as no --yes.")
    ] = False,
    store: StoreOption = None,
    apps: Annotated[
        list[str] | None,
        typer.Option(
            "--app",
            metavar="APP",
            help="Also look for artifacts and conversations in this app, although the store has "
            "nothing of it; repeatable.",
        ),
    ] = None,
    artifact_service_uri: ArtifactUri = None,
    agents_dir: AgentsOption = None,
    without_artifacts: Annotated[
        bool, typer.Option("--without-artifacts", help="Erase although artifacts may remain.")
    ] = False,
    memory_service_uri: MemoryUri = None,
    without_scrubbing: Annotated[
        bool,
        typer.Option(
            "--without-scrubbing",
            help="Leave the deleted bytes in the SQLite file until it is rewritten.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count what is kept of a user in all apps and places; with --yes, erase it for good.

    If it is stopped, call it again to continue. Exits with status 3 if something remains.
    """
    if yes and dry_run:
        raise typer.BadParameter("give only one of --yes and --dry-run")
    given: dict[str, Any] = {
        "artifact_service_uri": artifact_service_uri,
        "memory_service_uri": memory_service_uri,
    }
    settings = open_settings(store, verbose=False, **given)
    artifacts = None if without_artifacts else artifact_service_of(settings, agents_dir)
    if yes and artifacts is None and not without_artifacts:
        raise InvalidValueError(
            "artifacts",
            "say where they are kept with --artifact-service-uri or --agents-dir, or "
            "--without-artifacts to leave them",
        )
    if not yes:
        plan = run_async(_plan(settings, user, apps or (), artifacts))
        _print_plan(plan, as_json=as_json)
        return
    receipt, unscrubbed = run_async(
        _erase(settings, user, apps or (), artifacts, scrubs=not without_scrubbing)
    )
    _print_receipt(receipt, unscrubbed, as_json=as_json)


async def _plan(
    settings: Settings, user: str, apps: Sequence[str], kept: Kept
) -> Mapping[str, int]:
    async with _erasure(settings, user, apps, kept) as erasure:
        with waiting("counting"):
            return await erasure.plan()


async def _erase(
    settings: Settings, user: str, apps: Sequence[str], kept: Kept, *, scrubs: bool
) -> tuple[Receipt, str | None]:
    async with _erasure(settings, user, apps, kept) as erasure:
        ahead = sum((await erasure.plan()).values()) if sys.stderr.isatty() else None
        with progress_bar("erasing", ahead) as advance:
            receipt = await erasure.run(acting_as(), advance)
        if scrubs:
            with waiting("taking deleted bytes out of the file"):
                return receipt, await erasure.store.scrub()
        return receipt, "the deleted bytes in the file and its log"


@asynccontextmanager
async def _erasure(
    settings: Settings, user: str, apps: Sequence[str], kept: Kept
) -> AsyncIterator[Erasure]:
    """Provide the erasure of a user, with what the settings and the options name."""
    from lapse.erasure.erasing import Erasure
    from lapse.erasure.services import Artifacts

    async with ready_store(settings) as store:
        end, elsewhere = _ends(settings, store)
        yield Erasure(
            store,
            user,
            end=end,
            artifacts=None if kept is None else Artifacts(*kept),
            memory=_memory(settings),
            elsewhere=elsewhere,
            apps=apps,
        )


def _ends(
    settings: Settings, store: Database
) -> tuple[Callable[[SessionKey], Awaitable[object]], OtherService | None]:
    """Return what deletes a session, and what another session service has."""
    from lapse.notices.announcements import Announcements
    from lapse.store.sessions import Sessions

    if settings.conversations_uri:
        from lapse.adk.services import service_of
        from lapse.erasure.services import OtherService

        service = service_of(store, settings, None, Path())
        return lambda key: service.delete_session(*key), OtherService(service)

    async def end(key: SessionKey) -> None:
        await Sessions(store).delete(key)
        await Announcements(store).announce([key])

    return end, None


def _memory(settings: Settings) -> Memory | None:
    from lapse.adk.remembered import Memory

    uri = settings.server.memory_service_uri
    if uri is None:
        return None
    from lapse.adk.memory import memory_service

    try:
        return Memory(memory_service(uri))
    except ValueError as error:
        raise InvalidValueError("memory_service_uri", str(error)) from error


def _print_plan(plan: Mapping[str, int], *, as_json: bool) -> None:
    if as_json:
        from lapse.erasure.erasing import in_camel_case

        print_json({"dryRun": True, "found": in_camel_case(plan)})
        return
    if not any(plan.values()):
        typer.echo("nothing is kept of this user")
    for name, number in plan.items():
        if number:
            typer.echo(f"{name.replace('_', ' ')}: {number:,}")
    typer.echo("nothing was changed; --yes erases it for good", err=True)


def _print_receipt(receipt: Receipt, unscrubbed: str | None, *, as_json: bool) -> None:
    remains = [*receipt.remains, *([] if unscrubbed is None else [unscrubbed])]
    if as_json:
        print_json(receipt.document() | {"remains": remains})
    else:
        for name, number in receipt.erased.items():
            typer.echo(f"{name.replace('_', ' ')}: {number:,}")
        typer.echo(f"erased in {receipt.passes} passes; the audit log has the receipt")
        typer.echo(f"receipt {receipt.digest}")
        typer.echo(f"key of the receipt, which is kept nowhere: {receipt.key}")
        for sentence in remains:
            typer.echo(f"not erased: {sentence}", err=True)
    if not receipt.is_whole:
        fail("the user adds data faster than this erases it; stop their access, and run it again")
    if remains:
        raise typer.Exit(Exit.ATTENTION)
