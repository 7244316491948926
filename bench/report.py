"""The results as Markdown, written into the README between two markers."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.goals import HTTP_STEPS, Goal, Results
from bench.http.serving import SERVERS
from bench.services.service_level import CALLERS
from bench.support.peers import OPERATIONS, PEERS

BEGIN: Final = "<!-- results: written by run.py -->"
_STORES: Final = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
END: Final = "<!-- end of results -->"
_PACKAGES: Final = (
    "lapse", "google-adk", "SQLAlchemy", "aiosqlite", "asyncpg", "fastapi", "uvicorn",
    "uvloop", "pydantic",
)  # fmt: skip
_LOADS: Final = {"paced": "8 callers, 20 ms between calls", "closed": "32 callers, no pause"}
_LATENESS: Final = {
    "decided": "decided, by the database's clock",
    "told": "heard of by the consumers",
}
_DRAINS: Final = {
    "bare": "one bare `UPDATE`",
    "alone": "`sweep_once`, no consumers",
    "consumers": "`sweep_once`, metrics and log",
}


def circumstances() -> dict[str, str]:
    """Return what the numbers depend on: versions, machine, date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "versions": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{versions}",
    }


def write(readme: Path, results: Results, verdicts: Sequence[Goal]) -> None:
    """Replace what stands between the markers."""
    text = readme.read_text("utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    body = "\n".join(_lines(results, verdicts))
    readme.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", "utf-8")


def _lines(results: Results, verdicts: Sequence[Goal]) -> Iterable[str]:
    facts = results["circumstances"]
    met = sum(goal.met for goal in verdicts)
    server = f" {facts['server']}." if "server" in facts else ""
    yield f"{facts['date']}. {facts['machine']}. {facts['versions']}.{server}"
    yield ""
    yield f"**{met} of {len(verdicts)} goals met.**"
    yield ""
    yield "![Ratios against the goals](ratios.svg)"
    yield ""
    yield from _table(
        ["goal", "", "measured", "bound", ""],
        [
            [goal.section, goal.what, _number(goal, goal.value), _bound(goal), goal.verdict]
            for goal in verdicts
        ],
    )
    sections = {
        "services": _services,
        "floor": _floor,
        "sweep": _sweep,
        "lateness": _lateness,
        "memory": _memory,
        "http": _http,
    }
    for store, shown in _STORES.items():
        for section, lines in sections.items():
            if section in results.get(store, {}):
                yield from lines(results[store], store, shown)


def _services(results: Any, store: str, shown: str) -> Iterable[str]:
    found = results["services"]
    for callers in CALLERS:
        yield f"### {shown}: session services, {callers} concurrent caller{'s' * (callers > 1)}"
        yield ""
        rows = []
        for operation, what in OPERATIONS.items():
            measured = found["operations"][operation][str(callers)]
            for peer in PEERS[store]:
                if peer.name not in measured:
                    continue
                sample = measured[peer.name]
                rows.append(
                    [
                        what if peer is PEERS[store][0] else "",
                        peer.label,
                        f"{sample['rate']:,.0f}",
                        f"{measured['lapse']['rate'] / sample['rate']:.2f}",
                        f"{sample['cpu'] * 1e6:,.0f}",
                        f"{sample['p50'] * 1e3:.2f}",
                        f"{sample['p99'] * 1e3:.2f}",
                        ", ".join(f"{n} {name}" for name, n in sample["errors"].items()),
                    ]
                )
        yield from _table(
            ["", "", "op/s", "Lapse ÷ it", "CPU µs/op", "p50 ms", "p99 ms", "errors"], rows
        )
    yield "Durability, as each peer's own connections report it:"
    yield ""
    durability = found["durability"]
    yield from _table(
        ["", ""], [[peer.label, f"`{durability[peer.name]}`"] for peer in PEERS[store]]
    )


def _floor(results: Any, _store: str, _shown: str) -> Iterable[str]:
    if "services" not in results:
        return
    yield "The floor, one writer on the bare `sqlite3` driver, WAL and `synchronous=FULL`:"
    yield ""
    create = results["services"]["operations"]["create_session"]["32"]["lapse"]["rate"]
    yield from _table(
        ["rows in a transaction", "rows/s", "Lapse create ÷ it"],
        [
            [name, f"{sample['rate']:,.0f}", f"{create / sample['rate']:.2f}"]
            for name, sample in results["floor"].items()
        ],
    )


def _sweep(results: Any, _store: str, shown: str) -> Iterable[str]:
    found = results["sweep"]
    yield f"### {shown}: sweep"
    yield ""
    yield from _table(
        ["stored, none due", "p50 ms", "p99 ms"],
        [
            [f"{int(stored):,}", f"{sample['p50'] * 1e3:.3f}", f"{sample['p99'] * 1e3:.3f}"]
            for stored, sample in found["idle"].items()
        ],
    )
    if any(found["plans"].values()):
        yield "What such a sweep reads of the table, as `EXPLAIN (ANALYZE, BUFFERS)` has it:"
        yield ""
        yield from _table(
            ["stored, none due", "statement", "scans"],
            [
                [f"{int(stored):,}", f"`{statement}`", scans]
                for stored, plans in found["plans"].items()
                for statement, scans in plans.items()
            ],
        )
    bare = found["drain"]["bare"]["rate"]
    yield from _table(
        [f"{found['due']:,} due among {found['stored']:,}", "sessions/s", "÷ `UPDATE`", "CPU µs"],
        [
            [
                what,
                f"{found['drain'][name]['rate']:,.0f}",
                f"{found['drain'][name]['rate'] / bare:.3f}",
                f"{found['drain'][name]['cpu'] * 1e6:.1f}",
            ]
            for name, what in _DRAINS.items()
        ],
    )
    yield from _table(
        ["beside a drain", "", "idle p50 ms", "during", "idle p99 ms", "during", "drained/s"],
        [
            [
                what,
                operation,
                *(
                    f"{found['beside'][load][operation][number] * 1e3:.2f}"
                    for number in ("idle_p50", "during_p50", "idle_p99", "during_p99")
                ),
                f"{found['beside'][load]['rate']:,.0f}",
            ]
            for load, what in _LOADS.items()
            for operation in ("create", "message")
        ],
    )


def _lateness(results: Any, _store: str, shown: str) -> Iterable[str]:
    found = results["lateness"]
    shares = ", ".join(f"{count:,}" for count in found["by_replica"])
    yield f"### {shown}: lateness, {found['sessions']:,} due within {found['within']:.0f} s"
    yield ""
    yield from _table(
        ["", "minimum ms", "p50 ms", "p99 ms", "maximum ms"],
        [
            [what, *(f"{found[name][number] * 1e3:.2f}" for number in _SPREAD)]
            for name, what in _LATENESS.items()
        ],
    )
    yield f"{len(found['by_replica'])} replicas expired {found['expired']:,}: {shares}."
    yield ""


def _memory(results: Any, _store: str, shown: str) -> Iterable[str]:
    found = results["memory"]
    yield f"### {shown}: memory"
    yield ""
    designs = {"lapse": "Lapse, service and sweeper", "naive": "one sleeping task per session"}
    yield from _table(
        ["", "sessions", "RSS at 100, MiB", "RSS then, MiB", "bytes per session"],
        [
            [
                what,
                f"{found[name]['sessions']:,}",
                f"{found[name]['few'] / 2**20:.1f}",
                f"{found[name]['many'] / 2**20:.1f}",
                f"{found[name]['per_session']:,.0f}",
            ]
            for name, what in designs.items()
        ],
    )


def _http(results: Any, store: str, shown: str) -> Iterable[str]:
    found = results["http"]
    yield f"### {shown}: servers, one worker, 32 connections"
    yield ""
    servers = found["servers"]
    rows = []
    for server in SERVERS[store]:
        of = servers[server.name]
        rows.append(
            [
                server.label,
                f"{of['create']['rate']:,.0f}",
                f"{of['create']['p99'] * 1e3:.0f}",
                f"{of['run_sse']['rate']:,.0f}",
                f"{of['run_sse']['first_byte_p50'] * 1e3:.0f}",
                f"{of['run_sse']['first_body_p50'] * 1e3:.0f}",
                f"{of['run_sse']['first_body_p99'] * 1e3:.0f}",
                f"{of['start']['seconds']:.2f}",
                ", ".join(f"{count} {what}" for what, count in of["wrong"].items()),
            ]
        )
    yield from _table(
        [
            "", "create/s", "p99 ms", "/run_sse/s", "headers p50 ms", "stream p50 ms",
            "stream p99 ms", "start s", "errors",
        ],
        rows,
    )  # fmt: skip
    busiest = max(of[step]["client_busy"] for of in servers.values() for step in HTTP_STEPS)
    yield (
        f"The load generator reached {found['ceiling']:,.0f} requests/s against a server that "
        f"does nothing; it was never more than {busiest:.0%} busy."
    )
    yield ""


_SPREAD: Final = ("minimum", "p50", "p99", "maximum")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _number(goal: Goal, value: float) -> str:
    if goal.unit != "x":
        return f"{value:.2f}{goal.unit}"
    return f"{value:.1f}x" if value >= 10 else f"{value:.3g}x"


def _bound(goal: Goal) -> str:
    return f"{'≥' if goal.at_least else '≤'} {_number(goal, goal.bound)}"
