"""`lapse ttl`: shows the TTL policy's decisions and their reasons, and resets its window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapse.cli.command import StoreOption, fail, narrow_table, open_settings, ready_store, run_async

if TYPE_CHECKING:
    from lapse.settings import Settings
    from lapse.ttl import Cohort, Decision, Scope, Targets
    from lapse.ttl.store import TtlStore

ttl_commands = typer.Typer(
    help="The TTL policy: show its TTLs, explain them, reset its window.", no_args_is_help=True
)

AppOption = Annotated[str | None, typer.Option("--app", help="Only this app.")]

_HISTORY = 10

_LEGEND = """\
soft: share of the observed first messages that would resurrect their session; at most: upper bound
of that share; hard: share of messages that came after the purge; saved: empty session-hours a day,
compared with a TTL of {default} min"""


@ttl_commands.command()
def show(
    store: StoreOption = None,
    app_name: AppOption = None,
    png: Annotated[
        Path | None, typer.Option(help="Write the Kaplan-Meier curves to this file.")
    ] = None,
) -> None:
    """Show the TTL of each app and segment, with its reason, its misses and what it saves."""
    settings = open_settings(store, verbose=False)
    run_async(_show(settings, app_name, png))


@ttl_commands.command()
def explain(
    store: StoreOption = None,
    app_name: AppOption = None,
) -> None:
    """Print the latest decisions about TTLs, and the observations behind each."""
    settings = open_settings(store, verbose=False)
    run_async(_explain(settings, app_name))


@ttl_commands.command("reset-window")
def reset_window(
    store: StoreOption = None,
    app_name: AppOption = None,
) -> None:
    """Ignore the observations so far, for example after a change of the page; the TTLs stay."""
    settings = open_settings(store, verbose=False)
    run_async(_reset(settings, app_name))


async def _show(settings: Settings, app_name: str | None, png: Path | None) -> None:
    from rich.console import Console

    from lapse.ttl.curve import Curve
    from lapse.ttl.rounds import ttl_of
    from lapse.ttl.store import TtlStore

    targets = settings.targets
    async with ready_store(settings) as store:
        ttls = TtlStore(store)
        in_force = {decision.scope: decision for decision in await ttls.ttl_decisions()}
        now = (await ttls.ttl_round()).now
        days = await _cohorts(ttls, now.date(), in_force)
    numbers = ("TTL, min", "soft", "at most", "hard", "messages", "saved")
    table = narrow_table("app", numbers[0], "why", *numbers[1:], whole=numbers)
    for column in table.columns[3:]:
        column.justify = "right"
    curves: dict[Scope, Curve] = {}
    notes: list[str] = []
    for scope in sorted({*in_force, *days}):
        if app_name not in {None, scope.app_name}:
            continue
        decision = in_force.get(scope)
        ttl = ttl_of(scope, in_force, targets.default)
        curve = Curve.of(days.get(scope, ()), targets.horizon, now)
        if curve is not None:
            curves[scope] = curve
        table.add_row(
            _name(scope),
            f"{ttl / timedelta(minutes=1):.1f}",
            str(decision.reason) if decision else "nothing decided yet",
            _share(decision.soft_miss_rate if decision else None),
            _share(decision.bound if decision else None),
            _share(decision.hard_miss_rate if decision else None),
            f"{decision.observations:,}" if decision else "-",
            _saved(curve, days.get(scope, ()), targets, ttl, now),
        )
        notes += _notes(scope, decision)
    Console().print(table)
    typer.echo(_LEGEND.format(default=_minutes(targets.default)))
    typer.echo(_policy_line(settings))
    for note in notes:
        typer.echo(note)
    if png is not None:
        _draw(curves, targets, png)


def _policy_line(settings: Settings) -> str:
    from lapse.ttl import Policy

    match settings.ttl_policy:
        case Policy.FIXED:
            return "policy: fixed; no TTL is decided, but first messages are counted"
        case Policy.SHADOW:
            return "policy: shadow; these TTLs are not applied"
        case Policy.ADAPTIVE:
            return "policy: adaptive; new sessions get these TTLs"


def _notes(scope: Scope, decision: Decision | None) -> list[str]:
    if decision is None:
        return []
    name = _name(scope)
    notes = []
    if decision.horizon_too_short:
        notes.append(f"{name}: the hard target is missed; only a longer LAPSE_RESTORE_HOURS helps")
    if decision.control_alarm:
        notes.append(
            f"{name}: sessions with the longest TTL get late messages that others do not get; "
            "does the page stop sending when a session expires?"
        )
    if decision.withdrawn:
        notes.append(
            f"{name}: more than 1 % of sessions were deleted before a message; misses may be more"
        )
    return notes


def _saved(curve: Any, days: Sequence[Cohort], targets: Targets, ttl: timedelta, now: Any) -> str:
    mature = [day for day in days if day.mature(now, targets.horizon)]
    if curve is None or not mature:
        return "-"
    each = curve.cost(targets.default) - curve.cost(ttl)
    per_day = sum(day.created for day in mature) / len(mature)
    return f"{each / timedelta(hours=1) * per_day:,.1f}"


def _name(scope: Scope) -> str:
    return "/".join(part for part in scope if part)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


async def _cohorts(
    ttls: TtlStore, today: date, in_force: Mapping[Scope, Decision]
) -> Mapping[Scope, Sequence[Cohort]]:
    from lapse.ttl.deciding import WINDOW_DAYS
    from lapse.ttl.observed import cohorts, separate_segments

    horizon = ttls.rules.horizon
    counts = await ttls.observed(since=today - timedelta(days=WINDOW_DAYS + 1) - horizon)
    return cohorts(counts, separate_segments(counts, known=in_force))


def _draw(curves: Mapping[Scope, Any], targets: Targets, png: Path) -> None:
    from lapse.core.ages import EDGES
    from lapse.ttl.plots import figure

    with figure(png) as (axes,):
        for scope, curve in curves.items():
            minutes = [edge / timedelta(minutes=1) for edge in EDGES[: len(curve.silent)]]
            label = _name(scope)
            axes.step(minutes[1:], curve.silent[1:], where="post", label=label)
        axes.axvline(
            targets.default / timedelta(minutes=1), ls=":", lw=1, color="grey", label="default"
        )
        axes.set_xscale("log")
        axes.set_ylim(0, 1)
        axes.set_xlabel("age, minutes")
        axes.set_ylabel("sessions without a message")
        axes.legend(fontsize=7)


async def _explain(settings: Settings, app_name: str | None) -> None:
    from lapse.ttl.store import TtlStore

    async with ready_store(settings) as store:
        decisions = await TtlStore(store).ttl_decisions(newest=_HISTORY)
    decisions = [one for one in decisions if app_name in {None, one.scope.app_name}]
    if not decisions:
        fail("nothing was decided yet; set LAPSE_TTL_POLICY=shadow and wait a day")
    for scope in sorted({decision.scope for decision in decisions}):
        typer.echo(_name(scope))
        for decision in decisions:
            if decision.scope == scope:
                typer.echo(f"  {sentence(decision)}")


def sentence(decision: Decision) -> str:
    """Return a decision as one line of text, with its observations."""
    from lapse.ttl import Reason

    ttl = "no TTL of its own" if decision.ttl is None else f"{_minutes(decision.ttl)} min"
    told = f"{decision.at:%Y-%m-%d %H:%M} {ttl}: {decision.reason}"
    if decision.reason is Reason.RAISED:
        told += f", which saw {decision.observations:,} first messages"
    elif decision.first_day is None:
        told += ", no complete day in the window"
    else:
        told += (
            f", {decision.observations:,} first messages of sessions created "
            f"{decision.first_day} to {decision.last_day}"
        )
    if decision.bound is not None and decision.observations:
        told += f"; {decision.missed:,} came later than the TTL, at most {decision.bound:.2%} do"
    if decision.wanted is not None and decision.wanted != decision.ttl:
        told += f"; the data call for {_minutes(decision.wanted)} min"
    if decision.held_until is not None:
        told += f"; not lowered before {decision.held_until:%Y-%m-%d %H:%M}"
    return told


def _minutes(ttl: timedelta) -> str:
    return f"{ttl / timedelta(minutes=1):.1f}"


async def _reset(settings: Settings, app_name: str | None) -> None:
    from lapse.ttl.deciding import reset_window as forget
    from lapse.ttl.store import TtlStore

    async with ready_store(settings) as store:
        ttls = TtlStore(store)
        done = False
        while not done:
            found = await ttls.ttl_round()
            decisions = [
                forget(decision, found.now)
                for decision in await ttls.ttl_decisions()
                if app_name in {None, decision.scope.app_name}
            ]
            if not decisions:
                fail("nothing was decided yet, so there is no window to reset: `lapse ttl show`")
            slot = found.slot if found.slot is not None else 0
            done = await ttls.record_decisions(decisions, slot=slot, version=found.version)
    for decision in decisions:
        typer.echo(
            f"{_name(decision.scope)}: days before {decision.window_from} are ignored from now on"
        )
