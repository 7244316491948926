"""`lapse check`: everything that is wrong, at once, each with its remedy; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import typer

from lapse.cli.command import Exit, JsonOption, StoreOption, open_store, print_json, run_async
from lapse.cli.sessions import words

if TYPE_CHECKING:
    from lapse.overview.store import Overview
    from lapse.settings import Settings
    from lapse.store.database import Inspection
    from lapse.sweep.rules import Dues

_CLOCKS_APART: Final = timedelta(seconds=1)
"""More than that between this host's clock and the store's is told."""

_OVERDUE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found: what it was about, whether all is well, and else what to do."""

    check: str
    ok: bool
    says: str
    remedy: str | None = None


def check(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Examine settings and store as a server would, and change nothing.

    Ends with status 3 when there are problems.
    """
    findings = list(_settings_findings(store))
    settings = _settings_or_defaults(store)
    findings += run_async(_store_findings(settings))
    problems = [finding for finding in findings if not finding.ok]
    if as_json:
        print_json({"ok": not problems, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            typer.echo(f"{'ok     ' if finding.ok else 'PROBLEM'}  {finding.check}: {finding.says}")
            if finding.remedy is not None:
                typer.echo(f"         → {finding.remedy}")
    raise typer.Exit(Exit.ATTENTION if problems else Exit.OK)


def _settings_findings(store: str | None) -> Iterator[Finding]:
    from lapse.core.errors import SettingsError
    from lapse.settings import load_settings

    try:
        load_settings(store_url=store)
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("settings", False, problem, "correct or unset it")
    else:
        yield Finding("settings", True, "every one can be read")


def _settings_or_defaults(store: str | None) -> Settings:
    """Return the settings; where they are wrong, defaults with the store that is meant."""
    import os

    from lapse.core.errors import SettingsError
    from lapse.settings import ENV_FILE, Settings, load_settings

    try:
        return load_settings(store_url=store)
    except SettingsError:
        from dotenv import dotenv_values

        name = "LAPSE_STORE_URL"
        url = store or os.environ.get(name) or dotenv_values(ENV_FILE).get(name)
        settings = Settings.model_construct()
        return settings.model_copy(update={"store_url": url}) if url else settings


async def _store_findings(settings: Settings) -> list[Finding]:
    from lapse.check.store import MOST_COUNTED
    from lapse.core.clock import utc_now
    from lapse.core.errors import LapseError
    from lapse.overview.store import OverviewStore
    from lapse.sweep.store import SweepStore

    findings: list[Finding] = []
    try:
        store = open_store(settings)
    except LapseError as error:
        return [Finding("store", False, str(error), "correct --store or LAPSE_STORE_URL")]
    try:
        before = utc_now()
        inspection = await store.inspect(most=MOST_COUNTED)
        took = utc_now() - before
        milliseconds = took / timedelta(milliseconds=1)
        findings.append(Finding("store", True, f"answers in {milliseconds:.0f} ms"))
        findings += _version(inspection)
        findings.append(_clock(inspection.now - before, took))
        findings += _contents(inspection, settings)
        if inspection.version == inspection.newest:
            dues = await SweepStore(store).dues(most=MOST_COUNTED)
            findings.append(_brake(dues, settings))
            findings.append(
                _sweeper(await OverviewStore(store).overview(since=timedelta(0)), settings)
            )
    except LapseError as error:
        findings.append(Finding("store", False, str(error), _remedy(error)))
    finally:
        await store.close()
    return findings


def _remedy(error: Exception) -> str:
    from lapse.core.errors import StoreUnavailableError

    if isinstance(error, StoreUnavailableError):
        return "start the database, or correct --store or LAPSE_STORE_URL"
    return "put it right as it says, or name another store; nothing was changed"


def _version(found: Inspection) -> Iterator[Finding]:
    if not found.version:
        yield Finding("schema", True, "nothing there yet: the next start creates the tables")
    elif found.version < found.newest:
        yield Finding(
            "schema",
            False,
            f"version {found.version}, and this Lapse works with {found.newest}",
            "the next start brings it up to date if its role may; else run `lapse migrate`",
        )
    else:
        yield Finding("schema", True, f"version {found.version}")
    if found.version:
        missing = ", ".join(found.missing_indexes)
        yield Finding(
            "indexes",
            not missing,
            f"missing or invalid: {missing}" if missing else "all there",
            "create them again, as `src/lapse/stores/sql/` does; on PostgreSQL CONCURRENTLY, or "
            "REINDEX INDEX CONCURRENTLY one that is invalid"
            if missing
            else None,
        )


def _clock(ahead: timedelta, took: timedelta) -> Finding:
    """Compare the clocks: the store read its own at some moment while it was asked."""
    apart = max(ahead - took, -ahead, timedelta(0))
    which = "ahead of" if ahead > took else "behind"
    if apart <= _CLOCKS_APART:
        return Finding("clock", True, "the store's and this host's agree")
    return Finding(
        "clock",
        False,
        f"the store's is {words(apart)} {which} this host's",
        "synchronise both hosts' clocks (NTP); deadlines go by the store's alone, but log lines "
        "and tokens go by this host's",
    )


def _contents(found: Inspection, settings: Settings) -> Iterator[Finding]:
    from lapse.check.store import MOST_COUNTED

    if found.used_but_expired:
        yield Finding(
            "used sessions",
            False,
            f"{found.used_but_expired:,} that had a message count as expired, which must never be",
            "stop every sweeper (LAPSE_SWEEPER=off), back the store up, and report it",
        )
    elif found.version:
        yield Finding("used sessions", True, "none counts as expired")
    if not settings.cleanup_enabled:
        what = "nothing: SESSION_CLEANUP_ENABLED is false"
    elif not found.expire and not found.purge:
        what = "nothing is due"
    else:
        more = " or more" if max(found.expire, found.purge) >= MOST_COUNTED else ""
        what = f"{found.expire:,} would expire and {found.purge:,} would be purged{more}"
    yield Finding("next sweep", True, what)


def _brake(dues: Dues, settings: Settings) -> Finding:
    remedy = "look with `lapse sweep --dry-run`; then `lapse sweep --confirm`, or wait an hour"
    lost = dues.purge if settings.horizon else dues.purge + dues.expire
    most = max(settings.brake_sessions, settings.brake_share * dues.stored)
    if dues.brake is not None:
        since, until = dues.brake.since, dues.brake.until
        says = (
            f"{dues.brake.reason}, since {since:%Y-%m-%d %H:%M:%S} UTC: nothing is purged before "
            f"{until:%H:%M:%S}"
        )
        return Finding("brake", False, says, remedy)
    if settings.cleanup_enabled and lost > most:
        says = (
            f"the next sweep sets it: {lost:,} of {dues.stored:,} sessions would be gone for good"
        )
        return Finding("brake", False, says, remedy)
    return Finding("brake", True, "none is set")


def _sweeper(overview: Overview, settings: Settings) -> Finding:
    late = overview.overdue > _OVERDUE and settings.cleanup_enabled
    seen = (
        "none has worked yet"
        if overview.swept_at is None
        else f"one worked {words(overview.now - overview.swept_at)} ago"
    )
    if not late:
        return Finding("sweeper", True, seen)
    return Finding(
        "sweeper",
        False,
        f"{seen}; a session is overdue by {words(overview.overdue)}",
        "start a server with LAPSE_SWEEPER=on, or `lapse sweep --watch`",
    )
