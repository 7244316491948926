"""What a replay has shown: as a table, as JSON, as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from lapse.core.minutes import minutes_of
from lapse.ttl import Reason, Targets
from lapse.ttl.plots import figure
from lapse.ttl.simulation.replay import Replayed, Score


@dataclass(frozen=True, slots=True)
class Line:
    """One policy: its key in JSON, its name, what it did, and its TTL over time."""

    key: str
    name: str
    score: Score
    ttls: Sequence[timedelta]


def lines(replayed: Replayed, targets: Targets, fixed: Sequence[timedelta]) -> list[Line]:
    """Return the policies to compare: the adaptive one, fixed ones, the oracle."""
    learnt = [ttl for _, ttl in replayed.ttls] or [targets.default]
    found = [Line("adaptive", "adaptive", replayed.adaptive, learnt)]
    for number, ttl in enumerate(fixed):
        name = f"fixed {minutes_of(ttl):g} min"
        key = "fixed" if number == 0 else name.replace(" ", "_")
        found.append(Line(key, name, replayed.fixed(ttl), [ttl]))
    best = replayed.oracle(targets.soft)
    return [*found, Line("oracle", "oracle", replayed.fixed(best), [best])]


def as_table(found: Sequence[Line]) -> Table:
    """Return the policies side by side."""
    table = Table("policy", "soft misses", "hard misses", "empty session-hours", "TTL, min")
    for column in table.columns[1:]:
        column.justify = "right"
    for line in found:
        table.add_row(
            line.name,
            f"{line.score.soft_miss_rate:.2%}",
            f"{line.score.hard_miss_rate:.2%}",
            f"{line.score.empty_session_hours:,.1f}",
            _over_time(line.ttls),
        )
    return table


def as_document(replayed: Replayed, targets: Targets, found: Sequence[Line]) -> dict[str, Any]:
    """Return it all as JSON has it."""
    return {
        "sessions": replayed.adaptive.sessions,
        "targets": targets.as_document(),
        "policies": {
            line.key: {
                "soft_miss_rate": line.score.soft_miss_rate,
                "hard_miss_rate": line.score.hard_miss_rate,
                "empty_session_hours": line.score.empty_session_hours,
                "first_messages": line.score.within,
                "soft_misses": line.score.soft,
                "hard_misses": line.score.hard,
                "ttl_minutes": line.ttls[-1] / timedelta(minutes=1),
            }
            for line in found
        },
        "control_group_empty_session_hours": replayed.control_seconds / 3600,
        "alarms": sum(decision.reason is Reason.RAISED for decision in replayed.decisions),
        "ttl_over_time": [
            {"at": at.isoformat(), "ttl_minutes": ttl / timedelta(minutes=1)}
            for at, ttl in replayed.ttls
        ],
    }


def draw(replayed: Replayed, targets: Targets, found: Sequence[Line], path: Path) -> None:
    """Write a plot of the TTL and of the soft misses over time."""
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
        for line in found[1:]:
            style = "--" if line.key == "oracle" else ":"
            upper.axhline(line.ttls[-1] / timedelta(minutes=1), ls=style, lw=1, label=line.name)
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
