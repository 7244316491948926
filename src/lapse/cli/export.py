"""`lapse export` and `lapse import`: everything of one user, in a folder and back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapse.cli.adk_options import ArtifactUri
from lapse.cli.command import (
    JsonOption,
    StoreOption,
    acting_as,
    check_conversations,
    open_settings,
    open_store,
    print_json,
    ready_store,
    run_async,
)
from lapse.cli.progress import progress_bar, waiting
from lapse.core.errors import InvalidValueError

if TYPE_CHECKING:
    from lapse.export.artifacts import Artifacts
    from lapse.export.manifest import Manifest
    from lapse.settings import Settings
    from lapse.store.database import Snapshot

UserOption = Annotated[str, typer.Option("--user", metavar="USER", help="The user's id.")]
AgentsOption = Annotated[
    Path | None,
    typer.Option(
        "--agents-dir",
        metavar="DIR",
        help="The folder of agents whose own folders keep artifacts, as `lapse serve` has it.",
    ),
]


def export(
    user: UserOption,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for the export.")],
    app: Annotated[
        str | None, typer.Option("--app", metavar="APP", help="Export only this app.")
    ] = None,
    store: StoreOption = None,
    artifact_service_uri: ArtifactUri = None,
    agents_dir: AgentsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export everything that the store keeps of a user, as JSON Lines with checksums.

    Artifacts are exported if it is said where they are kept.
    """
    settings = open_settings(store, verbose=False, artifact_service_uri=artifact_service_uri)
    check_conversations(settings, "export")
    artifacts = artifacts_of(settings, agents_dir)
    manifest = run_async(_export(settings, user, app, out, artifacts))
    if as_json:
        files = [{"name": name, "lines": lines} for name, lines in manifest.lines.items()]
        print_json({"folder": str(out), "files": files})
        return
    for name, lines in manifest.lines.items():
        typer.echo(f"{out / name}: {lines:,}")
    if artifacts is None:
        typer.echo(
            "no artifacts: it is not known where they are kept; name --artifact-service-uri or "
            "--agents-dir",
            err=True,
        )


def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an export.")],
    store: StoreOption = None,
    artifact_service_uri: ArtifactUri = None,
    agents_dir: AgentsOption = None,
    without_artifacts: Annotated[
        bool, typer.Option("--without-artifacts", help="Do not import the artifacts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Import what `lapse export` has written. What the store has already is never changed."""
    settings = open_settings(store, verbose=False, artifact_service_uri=artifact_service_uri)
    check_conversations(settings, "import")
    artifacts = None if without_artifacts else artifacts_of(settings, agents_dir)
    manifest, written = run_async(
        _import(settings, folder, artifacts, without_artifacts=without_artifacts)
    )
    if as_json:
        print_json(
            {
                "user": manifest.user_id,
                "places": [{"name": one, "rows": rows} for one, rows in written.items()],
            }
        )
        return
    for name, number in written.items():
        typer.echo(f"{name.replace('_', ' ')}: {number:,}")


def artifacts_of(settings: Settings, agents_dir: Path | None) -> Artifacts | None:
    """Return where artifacts are kept, as an export reads and an import saves them."""
    from lapse.export.artifacts import Artifacts

    kept = artifact_service_of(settings, agents_dir)
    return None if kept is None else Artifacts(*kept)


def artifact_service_of(
    settings: Settings, agents_dir: Path | None
) -> tuple[Any, Callable[[str], bool]] | None:
    """Return the service that keeps artifacts, by a URI or in the folders of agents; None: unknown.

    The function tells whether the service has an app's artifacts.

    Raises:
        InvalidValueError: ADK has no artifact service for the URI, or there is no such folder.
    """
    uri = settings.server.artifact_service_uri
    if uri is None and agents_dir is None:
        return None
    if uri is None and agents_dir is not None and not agents_dir.is_dir():
        raise InvalidValueError(
            "--agents-dir", f"{agents_dir}: there is no such folder; name one that exists"
        )
    from lapse.adk.private.loaders import artifact_service

    folder = agents_dir or Path()
    try:
        service = artifact_service(folder, uri, use_local_storage=True)
    except ValueError as error:
        raise InvalidValueError("artifact_service_uri", str(error)) from error
    # Where each agent's folder holds its own, asking about an app makes its folder.
    return service, lambda app: uri is not None or (folder / app).is_dir()


async def _export(
    settings: Settings, user: str, app: str | None, out: Path, artifacts: Artifacts | None
) -> Manifest:
    from lapse import __version__
    from lapse.audit.store import AuditLog
    from lapse.core.clock import utc_now
    from lapse.core.keys import user_digest
    from lapse.export.exporting import Export
    from lapse.export.sinks import Folder

    async with ready_store(settings) as store:
        async with store.snapshot() as snapshot:
            export = Export(
                snapshot,
                user,
                app_name=app,
                artifacts=artifacts,
                at=utc_now(),
                lapse=__version__,
            )
            sink = Folder(out)
            with progress_bar("exporting", await _ahead(snapshot, user, app)) as advance:
                async for done in export.write(sink):
                    advance(done)
        assert export.manifest is not None
        act = {"user": user_digest(user), "lines": sum(export.manifest.lines.values())}
        await AuditLog(store).record_act(acting_as(), "exported", act)
        return export.manifest


async def _ahead(snapshot: Snapshot, user: str, app: str | None) -> int | None:
    """Return about how many lines are exported, or None if no progress bar is shown."""
    from lapse.erasure.store import ErasureStore

    if not sys.stderr.isatty():
        return None
    kept = ErasureStore(snapshot)
    found = [await kept.stored(one, user) for one in ([app] if app else await kept.apps(user))]
    return sum(one.sessions + one.events for one in found)


async def _import(
    settings: Settings, folder: Path, artifacts: Artifacts | None, *, without_artifacts: bool
) -> tuple[Manifest, Mapping[str, int]]:
    from lapse.audit.store import AuditLog
    from lapse.core.keys import user_digest
    from lapse.export.importing import Import
    from lapse.export.places import ARTIFACTS_FILE

    store = open_store(settings)
    work = Import(store, folder, artifacts=artifacts)
    try:
        with waiting("verifying"):
            manifest = await work.verify()
        if manifest.lines.get(ARTIFACTS_FILE) and artifacts is None and not without_artifacts:
            raise InvalidValueError(
                "artifacts",
                "the export has some; say where to keep them with --artifact-service-uri or "
                "--agents-dir, or leave them out with --without-artifacts",
            )
        await store.open()
        await work.check()
        total = sum(manifest.lines.values()) - manifest.lines.get(ARTIFACTS_FILE, 0)
        with progress_bar("importing", total) as advance:
            written = await work.put(advance)
        act = {"user": user_digest(manifest.user_id), "lines": sum(written.values())}
        await AuditLog(store).record_act(acting_as(), "imported", act)
    finally:
        await store.close()
    return manifest, written
