"""`lapse simulate`: replays a history of sessions through the TTL policy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapse.cli.command import fail, open_settings, ready_store, run_async
from lapse.cli.progress import progress_bar

if TYPE_CHECKING:
    from lapse.settings import Settings
    from lapse.ttl import Targets
    from lapse.ttl.simulation.traces import Arrival

_USUAL_TTLS = (30.0, 5.0, 10.0, 60.0, 240.0)


def simulate(
    trace: Annotated[
        Path | None,
        typer.Argument(
            help="A CSV or Parquet file with the columns created_at and "
            "first_message_delay_seconds (empty: never), optionally user_id and segment."
        ),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            "--generator", "-g", help="Generate the history with this generator; `list` prints all."
        ),
    ] = None,
    from_store: Annotated[
        str | None,
        typer.Option(
            "--from-store", "--store", metavar="URL", help="Replay the observations of a store."
        ),
    ] = None,
    app_name: Annotated[
        str | None, typer.Option("--app", help="With --from-store: only this app.")
    ] = None,
    soft_target: Annotated[
        str | None, typer.Option(help="Target for the share of soft misses: 0.05 or 5%.")
    ] = None,
    hard_target: Annotated[
        str | None, typer.Option(help="Highest acceptable share of hard misses: 0.005 or 0.5%.")
    ] = None,
    confidence: Annotated[
        str | None, typer.Option(help="Confidence that a TTL meets the soft target: 0.95 or 95%.")
    ] = None,
    fixed: Annotated[
        list[float] | None,
        typer.Option("--fixed", metavar="MINUTES", help="Also replay this fixed TTL; repeatable."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=36_500, help="Days of a generated history.")] = 90,
    per_day: Annotated[int, typer.Option(min=1, help="Sessions per generated day.")] = 2_000,
    cure: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of generated sessions that never get a message."),
    ] = 0.65,
    seed: Annotated[int, typer.Option(help="The same seed makes the same history.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    png: Annotated[Path | None, typer.Option(help="Write a plot to this file.")] = None,
) -> None:
    """Replay a history through the TTL policy, and compare it with fixed TTLs and an oracle."""
    from lapse.ttl.simulation.generators import GENERATORS, Plan

    if generator == "list":
        for name, known in GENERATORS.items():
            typer.echo(f"{name:10} {known.about}")
        return
    if [trace, generator, from_store].count(None) != 2:  # noqa: PLR2004 - one of the three
        fail("give a history: one of FILE, --generator NAME (`list` prints all), --from-store URL")
    if generator is not None and generator not in GENERATORS:
        fail(f"--generator {generator}: there is no such one; there are {', '.join(GENERATORS)}")
    settings = open_settings(from_store, verbose=False)
    targets = _targets(settings, soft_target, hard_target, confidence)
    ttls = _fixed(fixed)
    history: Iterable[Arrival]
    if generator is not None:
        from lapse.ttl.simulation.generators import generate

        plan = Plan(days, per_day, cure, seed)
        history, total = generate(generator, plan), timedelta(days=days)
    elif trace is not None:
        from lapse.ttl.simulation.traces import read_trace

        history = found = read_trace(trace)
        total = _span(found)
    else:
        history = found = run_async(_observed(settings, app_name))
        if not found:
            fail("the store has observed nothing yet; give a FILE, or --generator NAME")
        total = _span(found)
    _show(history, targets, ttls, total, as_json=as_json, png=png)


def _targets(
    settings: Settings, soft: str | None, hard: str | None, confidence: str | None
) -> Targets:
    from dataclasses import replace

    from lapse.core.errors import InvalidValueError
    from lapse.core.setting_types import doubt_of, share_from

    targets = settings.targets
    if not settings.horizon:
        raise InvalidValueError(
            "LAPSE_RESTORE_HOURS",
            "must not be 0: the TTL policy learns only if sessions are restorable",
        )
    if soft is not None:
        targets = replace(targets, soft=share_from(soft, field="--soft-target"))
    if hard is not None:
        targets = replace(targets, hard=share_from(hard, field="--hard-target"))
    if confidence is not None:
        targets = replace(targets, doubt=doubt_of(share_from(confidence, field="--confidence")))
    return targets


def _fixed(minutes: list[float] | None) -> list[timedelta]:
    from lapse.core.minutes import ttl_from_minutes

    return [ttl_from_minutes(number, field="--fixed") for number in minutes or _USUAL_TTLS]


def _span(history: list[Arrival]) -> timedelta:
    return timedelta(seconds=history[-1].created - history[0].created)


async def _observed(settings: Settings, app_name: str | None) -> list[Arrival]:
    from lapse.ttl.simulation.traces import drawn_from
    from lapse.ttl.store import TtlStore

    async with ready_store(settings) as store:
        counts = await TtlStore(store).observed(since=date.min)
    kept = [count for count in counts if app_name in {None, count.scope.app_name}]
    return drawn_from(kept, settings.horizon)


def _show(
    history: Iterable[Arrival],
    targets: Targets,
    ttls: list[timedelta],
    total: timedelta,
    *,
    as_json: bool,
    png: Path | None,
) -> None:
    from rich.console import Console

    from lapse.core.minutes import spelt
    from lapse.ttl.simulation.replay import replay
    from lapse.ttl.simulation.report import as_document, as_table, draw, policy_rows

    with progress_bar("replaying days", max(total.days, 1)) as advance:
        replayed = replay(history, targets, lambda over: advance(over.days))
    found = policy_rows(replayed, targets, ttls)
    if png is not None:
        draw(replayed, targets, found, png)
    if as_json:
        typer.echo(json.dumps(as_document(replayed, targets, found)))
        return
    Console().print(as_table(found))
    typer.echo(
        f"{replayed.adaptive.sessions:,} sessions, {replayed.adaptive.within:,} first messages "
        f"within {spelt(targets.horizon)}; soft target {targets.soft:.1%}, hard target "
        f"{targets.hard:.1%}"
    )
    typer.echo(
        f"the control group, 1 % of the sessions at {spelt(targets.cap)}, adds "
        f"{replayed.control_seconds / 3600:,.0f} empty session-hours"
    )
    if replayed.adaptive.hard_miss_rate > targets.hard:
        typer.echo(
            "hard misses exceed their target: a longer LAPSE_RESTORE_HOURS helps, a longer TTL "
            "does not"
        )
