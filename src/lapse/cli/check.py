"""`lapse check`: lists all problems of settings and store, with remedies; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import typer

from lapse.cli.command import Exit, JsonOption, StoreOption, open_store, print_json, run_async
from lapse.cli.keys import shown_part
from lapse.cli.sessions import words
from lapse.core.numbers import sessions

if TYPE_CHECKING:
    from lapse.check.speakers import Speakers
    from lapse.overview.store import Overview
    from lapse.retention.state import RetentionState
    from lapse.settings import Settings
    from lapse.store.database import Inspection
    from lapse.sweep.rules import Dues
    from lapse.webhooks.store import WebhookLevels

_CLOCKS_APART: Final = timedelta(seconds=1)
"""A larger difference between the clocks of this host and the store is a problem."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: the name of the check.
        ok: whether there is no problem.
        says: the state that the check found.
        remedy: what to do about a problem.
    """

    check: str
    ok: bool
    says: str
    remedy: str | None = None


def check(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check the settings and the store for problems, and change nothing.

    Exits with status 3 if there are problems.
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
            yield Finding("settings", False, problem, "correct the setting or unset it")
    else:
        yield Finding("settings", True, "all are valid")


def _settings_or_defaults(store: str | None) -> Settings:
    """Return the settings; if some are not valid, the defaults with the configured store."""
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
    from lapse.check.speakers import SpeakerStore
    from lapse.check.store import MOST_COUNTED
    from lapse.check.thresholds import HEARD_WITHIN
    from lapse.core.clock import utc_now
    from lapse.core.errors import LapseError
    from lapse.overview.store import OverviewStore
    from lapse.retention.state import read_state
    from lapse.sweep.store import SweepStore
    from lapse.webhooks.store import WebhookStore

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
            overview = await OverviewStore(store).overview(since=HEARD_WITHIN)
            findings.append(_sweeper(overview, settings))
            findings.append(_first_messages(overview))
            if settings.webhook_url is not None:
                findings.append(_webhook(await WebhookStore(store).webhook_levels()))
            if settings.retention_file is not None and not settings.conversations_uri:
                findings.append(_retention(await read_state(store, settings.retention_file)))
            unrecorded = await OverviewStore(store).unrecorded()
            findings.append(_unrecorded(unrecorded, adopts=not settings.conversations_uri))
            findings.append(_speakers(await SpeakerStore(store).speakers(), settings))
    except LapseError as error:
        findings.append(Finding("store", False, str(error), _remedy(error)))
    finally:
        await store.close()
    return findings


def _remedy(error: Exception) -> str:
    from lapse.core.errors import StoreUnavailableError

    if isinstance(error, StoreUnavailableError):
        return "start the database, or correct --store or LAPSE_STORE_URL"
    return "correct that, or name another store; nothing was changed"


def _version(found: Inspection) -> Iterator[Finding]:
    if not found.version:
        yield Finding("schema", True, "the store is empty: the next start creates the tables")
    elif found.version < found.newest:
        yield Finding(
            "schema",
            False,
            f"version {found.version}; this Lapse needs {found.newest}",
            "the next start upgrades it if its role may alter tables; else run `lapse migrate`",
        )
    else:
        yield Finding("schema", True, f"version {found.version}")
    if found.version:
        missing = ", ".join(found.missing_indexes)
        yield Finding(
            "indexes",
            not missing,
            f"missing or invalid: {missing}" if missing else "all there",
            "create missing ones as `src/lapse/store/{sqlite,postgres}/schema/` does; on "
            "PostgreSQL use CONCURRENTLY, and REINDEX INDEX CONCURRENTLY for invalid ones"
            if missing
            else None,
        )


def _clock(ahead: timedelta, took: timedelta) -> Finding:
    """Compare the clocks; the store read its clock at some moment within `took`."""
    apart = max(ahead - took, -ahead, timedelta(0))
    which = "ahead of" if ahead > took else "behind"
    if apart <= _CLOCKS_APART:
        return Finding("clock", True, "the store's clock and this host's agree")
    return Finding(
        "clock",
        False,
        f"the store's clock is {words(apart)} {which} this host's",
        "synchronise both hosts' clocks (NTP); deadlines use the store's clock only, but logs and "
        "tokens use this host's",
    )


def _contents(found: Inspection, settings: Settings) -> Iterator[Finding]:
    from lapse.check.store import MOST_COUNTED

    if found.used_but_expired:
        yield Finding(
            "used sessions",
            False,
            f"{found.used_but_expired:,} with a message are expired, which must never happen",
            "stop all sweepers (LAPSE_SWEEPER=off), back up the store, and report this",
        )
    elif found.version:
        yield Finding("used sessions", True, "none is expired")
    if not settings.cleanup_enabled:
        what = "nothing: SESSION_CLEANUP_ENABLED is false"
    elif not found.expire and not found.purge:
        what = "nothing is due"
    else:
        more = " or more" if max(found.expire, found.purge) >= MOST_COUNTED else ""
        what = f"{found.expire:,} would expire and {found.purge:,} would be purged{more}"
    yield Finding("next sweep", True, what)


def _brake(dues: Dues, settings: Settings) -> Finding:
    remedy = "review with `lapse sweep --dry-run`, then `lapse sweep --confirm`, or wait an hour"
    lost = dues.purge if settings.horizon else dues.purge + dues.expire
    most = settings.brakes.largest_purge(dues.stored)
    if dues.brake is not None:
        since, until = dues.brake.since, dues.brake.until
        says = (
            f"{dues.brake.reason}, since {since:%Y-%m-%d %H:%M:%S} UTC: nothing is purged before "
            f"{until:%Y-%m-%d %H:%M:%S} UTC"
        )
        return Finding("brake", False, says, remedy)
    if settings.cleanup_enabled and lost > most:
        says = f"the next sweep sets it: {lost:,} of {sessions(dues.stored)} would be purged"
        return Finding("brake", False, says, remedy)
    return Finding("brake", True, "none is set")


def _speakers(found: Sequence[Speakers], settings: Settings) -> Finding:
    """Say where only the agent speaks in most sessions, and what to set there; no problem."""
    from lapse.core.messages import UsedBy

    mostly = [
        one
        for one in found
        if one.are_mostly_agents and settings.used_by.of(one.app_name) is UsedBy.ANYONE
    ]
    if not mostly:
        return Finding("who speaks first", True, "the user, in most sessions that have a message")
    told = ", ".join(
        f"{one.agent_only:,} of {one.sessions:,} of {shown_part(one.app_name)}" for one in mostly
    )
    rule = ",".join([str(settings.used_by), *(f"{one.app_name}=user" for one in mostly)])
    return Finding(
        "who speaks first",
        True,
        f"only the agent spoke in {told} (of the sessions looked at that have a message)",
        f"LAPSE_USED_BY={rule} lets such sessions expire"
        + (
            ""
            if settings.conversations_uri
            else "; `lapse adopt --with-agent-only` takes those that stock ADK has left"
        ),
    )


def _sweeper(overview: Overview, settings: Settings) -> Finding:
    """Say whether a sweeper works; a store that holds nothing to sweep needs none yet."""
    from lapse.check.thresholds import is_overdue, is_silent

    seen = (
        "none has worked yet"
        if overview.swept_at is None
        else f"one worked {words(overview.now - overview.swept_at)} ago"
    )
    late = is_overdue(overview.overdue)
    silent = is_silent(overview.swept_at, overview.now) and bool(overview.tallies)
    if not settings.cleanup_enabled or not (late or silent):
        return Finding("sweeper", True, seen)
    return Finding(
        "sweeper",
        False,
        f"{seen}; a session is overdue by {words(overview.overdue)}"
        if late
        else f"{seen}: none works now",
        "start a server with LAPSE_SWEEPER=on, or `lapse sweep --watch`",
    )


def _first_messages(overview: Overview) -> Finding:
    """Say what share of the last hour's first messages found an expired session."""
    from lapse.check.thresholds import ENOUGH_HEARD, FOUND_EXPIRED, are_too_many_expired
    from lapse.core.lifecycle import ChangeKind

    heard = dict.fromkeys(ChangeKind, 0)
    for count in overview.counts:
        heard[count.kind] += count.sessions
    used, resurrected = heard[ChangeKind.USED], heard[ChangeKind.RESURRECTED]
    if used <= ENOUGH_HEARD:
        return Finding("TTL", True, f"{used:,} first messages in an hour, too few to judge it")
    says = f"{resurrected:,} of {used:,} first messages in an hour found an expired session"
    if not are_too_many_expired(resurrected, used):
        return Finding("TTL", True, says)
    return Finding(
        "TTL",
        False,
        f"{says}, more than {FOUND_EXPIRED:.0%}",
        "lengthen SESSION_CLEANUP_TTL_MINUTES; `lapse ttl explain` tells how long people take",
    )


def _webhook(levels: WebhookLevels) -> Finding:
    """Say how many events wait for the webhook, and how many were given up."""
    from lapse.check.thresholds import is_webhook_behind

    says = f"{levels.undelivered:,} events wait"
    if levels.undelivered:
        says += f", the oldest for {words(levels.oldest)}"
    if levels.given_up:
        says += f"; {levels.given_up:,} were given up in the last 30 days"
    if not is_webhook_behind(levels.oldest, levels.given_up):
        return Finding("webhook", True, says)
    return Finding(
        "webhook",
        False,
        says,
        "the servers' log says what the webhook answers; it should answer 2xx within ten seconds",
    )


def _retention(state: RetentionState) -> Finding:
    """Say whether the retention policy is in force, and whether sweeps keep up with it."""
    from lapse.check.thresholds import is_policy_forgotten, is_retention_behind

    if is_retention_behind(state.overdue):
        return Finding(
            "retention",
            False,
            f"{sessions(state.due)} wait for a sweep by the policy, the first for "
            f"{words(state.overdue)}",
            "start a server, or `lapse sweep --watch`, with LAPSE_RETENTION_FILE",
        )
    if state.is_in_force:
        return Finding("retention", True, "the policy is in force")
    says = (
        f"the policy has {state.faults} faults" if state.faults else "the policy is not confirmed"
    )
    return Finding(
        "retention",
        not is_policy_forgotten(state.unconfirmed_for, state.faults),
        f"{says}: nothing is archived or purged",
        "`lapse retention check`, then `lapse retention confirm`",
    )


def _unrecorded(number: int, *, adopts: bool) -> Finding:
    """Say how many sessions of ADK's tables Lapse has no record of; no problem."""
    if not number:
        return Finding("without a record", True, "no session of ADK's tables")
    return Finding(
        "without a record",
        True,
        f"{sessions(number)} of ADK's tables, written by stock ADK or before Lapse: kept, "
        "never swept, and not in Lapse's numbers",
        "`lapse report` tells what they hold; `lapse adopt` takes the empty ones"
        if adopts
        else "`lapse report URL` of the store tells what they hold",
    )
