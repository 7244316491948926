"""The results of a replay as a table, as JSON and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel
from rich.table import Table

from lapse.core.clock import iso
from lapse.core.minutes import minutes_of
from lapse.ttl import Reason, Targets
from lapse.ttl.plots import figure
from lapse.ttl.simulation.replay import Replayed, Score


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One policy of the comparison: its key in JSON, its name, its result, its TTLs over time."""

    key: str
    name: str
    score: Score
    ttls: Sequence[timedelta]


def policy_rows(
    replayed: Replayed, targets: Targets, fixed: Sequence[timedelta]
) -> list[PolicyRow]:
    """Return the policies to compare: the adaptive one, the fixed ones and the oracle."""
    learnt = [ttl for _, ttl in replayed.ttls] or [targets.default]
    found = [PolicyRow("adaptive", "adaptive", replayed.adaptive, learnt)]
    for number, ttl in enumerate(fixed):
        name = f"fixed {minutes_of(ttl):g} min"
        key = "fixed" if number == 0 else f"fixed{minutes_of(ttl):g}"
        found.append(PolicyRow(key, name, replayed.fixed(ttl), [ttl]))
    best = replayed.oracle(targets.soft)
    return [*found, PolicyRow("oracle", "oracle", replayed.fixed(best), [best])]


def as_table(found: Sequence[PolicyRow]) -> Table:
    """Return a table with a row for each policy."""
    table = Table("policy", "soft misses", "hard misses", "empty session-hours", "TTL, min")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in found:
        table.add_row(
            row.name,
            f"{row.score.soft_miss_rate:.2%}",
            f"{row.score.hard_miss_rate:.2%}",
            f"{row.score.empty_session_hours:,.1f}",
            _over_time(row.ttls),
        )
    return table


def as_document(replayed: Replayed, targets: Targets, found: Sequence[PolicyRow]) -> dict[str, Any]:
    """Return the results for JSON: shares, seconds and minutes as numbers, times in ISO 8601."""
    return {
        "sessions": replayed.adaptive.sessions,
        "targets": {to_camel(name): value for name, value in targets.as_document().items()},
        "policies": {
            row.key: {
                "softMissRate": row.score.soft_miss_rate,
                "hardMissRate": row.score.hard_miss_rate,
                "emptySessionHours": row.score.empty_session_hours,
                "firstMessages": row.score.within,
                "softMisses": row.score.soft,
                "hardMisses": row.score.hard,
                "ttlMinutes": row.ttls[-1] / timedelta(minutes=1),
            }
            for row in found
        },
        "controlGroupEmptySessionHours": replayed.control_seconds / 3600,
        "alarms": sum(decision.reason is Reason.RAISED for decision in replayed.decisions),
        "ttlOverTime": [
            {"at": iso(at), "ttlMinutes": ttl / timedelta(minutes=1)} for at, ttl in replayed.ttls
        ],
    }


def draw(replayed: Replayed, targets: Targets, found: Sequence[PolicyRow], path: Path) -> None:
    """Write a PNG plot of the TTL and of the weekly soft misses over time."""
    with figure(path, rows=2) as (upper, lower):
        for axes in (upper, lower):
            axes.tick_params(axis="x", labelrotation=30, labelsize=7)
        days = sorted(replayed.days)
        end = datetime.combine(days[-1], time(0), UTC) if days else replayed.ttls[-1][0]
        moments = [*(at for at, _ in replayed.ttls), end]
        learnt = [ttl / timedelta(minutes=1) for _, ttl in replayed.ttls]
        upper.step(
            moments,
            [*learnt, learnt[-1]],
            where="post",
            label="adaptive",
        )
        for row in found[1:]:
            style = "--" if row.key == "oracle" else ":"
            upper.axhline(row.ttls[-1] / timedelta(minutes=1), ls=style, lw=1, label=row.name)
        upper.set_yscale("log")
        upper.set_ylabel("TTL, minutes")
        upper.legend(fontsize=7, loc="upper right")
        weeks = [days[start : start + 7] for start in range(0, len(days), 7)]
        heard = [sum(replayed.days[day][0] for day in week) for week in weeks]
        missed = [sum(replayed.days[day][1] for day in week) for week in weeks]
        lower.step(
            [week[0] for week in weeks],
            [100 * m / h if h else 0 for m, h in zip(missed, heard, strict=True)],
            where="post",
            label="soft misses by week",
        )
        lower.axhline(100 * targets.soft, ls="--", lw=1, label="target")
        lower.set_ylabel("soft misses, %")
        lower.set_ylim(bottom=0)
        lower.legend(fontsize=7)


def _over_time(ttls: Sequence[timedelta]) -> str:
    minutes = [ttl / timedelta(minutes=1) for ttl in ttls]
    if len(minutes) == 1:
        return f"{minutes[0]:.1f}"
    return f"{minutes[0]:.1f} → {minutes[-1]:.1f} ({min(minutes):.1f} to {max(minutes):.1f})"
