"""A report for people: as a table, and as a picture."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.console import Group as Lines
from rich.table import Table

from lapse.databases.report import Kind, Report

_TITLES: Final = {
    Kind.USED: "used",
    Kind.EMPTY: "empty",
    Kind.AGENT_ONLY: "agent only",
    Kind.WITH_STATE: "state only",
    Kind.WITH_EVENTS: "no message",
    Kind.AWAITING: "awaiting",
    Kind.EVALUATION: "eval",
}
_MOST_APPS: Final = 20


def show(report: Report, console: Console) -> None:
    """Print a report."""
    console.print(Lines(_apps(report), _ages(report)))
    for line in _sentences(report):
        console.print(line, soft_wrap=True)


def _apps(report: Report) -> Table:
    table = _table(f"Sessions of {report.place}")
    table.add_column("app", overflow="fold")
    for title in ("sessions", *_TITLES.values()):
        table.add_column(title.replace(" ", "\n"), justify="right", no_wrap=True)
    apps = report.by_app()
    for app, kinds in list(apps.items())[:_MOST_APPS]:
        table.add_row(app, *_numbers([sum(kinds.values()), *(kinds[kind] for kind in _TITLES)]))
    if len(apps) > 1:
        table.add_section()
        counts = [report.count(*Kind), *(report.count(kind) for kind in _TITLES)]
        table.add_row(f"all {len(apps)}", *_numbers(counts))
    return table


def _table(title: str) -> Table:
    """Return a table for a terminal of 80 columns."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def _ages(report: Report) -> Table:
    table = _table("By age")
    table.add_column("", no_wrap=True)
    limits = [span(seconds) for seconds in report.question.ages]
    for title in (f"< {limits[0]}", *(f"≥ {limit}" for limit in limits)):
        table.add_column(title, justify="right")
    spoken = [Kind.AGENT_ONLY] if report.count(Kind.AGENT_ONLY) else []
    for kind in (Kind.USED, Kind.EMPTY, *spoken):
        table.add_row(_TITLES[kind], *_numbers(report.by_age(kind)))
    return table


def _sentences(report: Report) -> list[str]:
    total, empty = report.count(*Kind), report.count(Kind.EMPTY)
    share = f" ({empty / total:.0%})" if total else ""
    told = [f"{empty:,} of {total:,} sessions are empty{share}: {size(report.bytes(Kind.EMPTY))}."]
    if report.size is not None:
        told[0] = told[0][:-1] + f", in a database of {size(report.size)}."
    oldest = report.oldest(Kind.EMPTY)
    if oldest is not None:
        told.append(
            f"The oldest of them is of {oldest:%Y-%m-%d}; in the last seven days "
            f"{report.growth:,.1f} a day were created."
        )
    if spoken := report.count(Kind.AGENT_ONLY):
        told.append(
            f"In {spoken:,} more only the agent spoke ({spoken / total:.0%}): "
            f"{size(report.bytes(Kind.AGENT_ONLY))}. With LAPSE_USED_BY=user such sessions expire, "
            "too"
            + (
                ", if they are created by Lapse."
                if report.is_service
                else "; `lapse adopt --with-agent-only` takes those that are here."
            )
        )
    ttl = span(report.question.ttl.total_seconds())
    told.append(f"A sweep at a TTL of {ttl} would expire {report.due:,} of the empty ones.")
    told += _first_messages(report, ttl)
    if report.lobby:
        counts = ", ".join(f"{count:,} {status}" for status, count in sorted(report.lobby.items()))
        told.append(f"Lapse's lobby holds {counts}.")
    if report.orphans is not None:
        told.append(
            f"{report.orphans.artifacts:,} artifacts belong to {report.orphans.sessions:,} "
            "sessions that no longer exist."
        )
    told.append("Nothing was changed.")
    return told


def _first_messages(report: Report, ttl: str) -> list[str]:
    within = report.first_messages_within()
    if not within:
        return []
    parts = ", ".join(
        f"{part:.0%} {'later than any limit' if limit is None else 'within ' + span(limit)}"
        for part, limit in within.items()
    )
    told = [
        f"First messages came after a session's creation: {parts}; {report.late:,} after {ttl}."
    ]
    if report.latest_message is not None:
        ago = span(round((report.question.moment - report.latest_message).total_seconds()))
        told.append(f"The latest first message came {ago} ago.")
    return told


def draw(report: Report, path: Path) -> None:
    """Draw what came each day, and when first messages came, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    days_axes, delay_axes = figure.subplots(2)
    days = report.by_day()
    names = [datetime.fromisoformat(day) for day in days]
    used = [count for count, _ in days.values()]
    days_axes.bar(names, used, label="with messages", color="#2a78b5")
    days_axes.bar(
        names, [count for _, count in days.values()], bottom=used, label="empty", color="#d8a13c"
    )
    days_axes.set_title("Sessions created each day")
    days_axes.tick_params("x", rotation=30)
    days_axes.legend()
    limits = [span(seconds) for seconds in report.question.delays]
    delay_axes.bar([*limits, "later"], report.delays(), color="#2a78b5")
    delay_axes.set_title("First message within … of the session's creation")
    delay_axes.tick_params("x", rotation=45)
    figure.savefig(path, format="png", dpi=120)


def span(seconds: float) -> str:
    """Return a duration as people say it."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def size(count: int) -> str:
    """Return a number of bytes as people say it."""
    exponent = min(4, max(0, count.bit_length() - 1) // 10)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[exponent]
    return f"{count / 1024**exponent:,.{1 if exponent else 0}f} {unit}"


def _numbers(counts: list[int]) -> list[str]:
    return [f"{count:,}" for count in counts]
