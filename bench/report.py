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

from bench.goals import STORES, Goal, Results
from bench.http.servers import SERVERS
from bench.support.peers import CALLERS, OPERATIONS, PEERS

BEGIN: Final = "<!-- results: written by run.py -->"
END: Final = "<!-- end of results -->"
ONE_PROCESS: Final = "<!-- one process: written by bench/run.py -->"
END_OF_PROCESS: Final = "<!-- end of one process -->"
_PACKAGES: Final = (
    "lapse", "google-adk", "SQLAlchemy", "aiosqlite", "asyncpg", "fastapi", "uvicorn",
    "uvloop", "pydantic",
)  # fmt: skip
HTTP_STEPS: Final = {
    "create": "create, 32 connections",
    "get_50": "get of 50 events, 32",
    "list_20": "list of 20, 32",
    "run_sse": "`/run_sse`, 32",
    "run_few": "`/run_sse`, 4",
}
_LATENESS: Final = {
    "decided": "decided, by the database's clock",
    "told": "heard of by the consumers",
}
_DRAINS: Final = {
    "bare": "one bare `UPDATE`",
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


def write(readme: Path, details: Path, results: Results, verdicts: Sequence[Goal]) -> None:
    """Replace what stands between the markers of the readme, and write the details anew."""
    text = readme.read_text("utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    body = "\n".join(_summary(results, verdicts, details.name))
    readme.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", "utf-8")
    details.write_text("\n".join(_details(results)), "utf-8")


def write_process(page: Path, results: Results) -> None:
    """Replace the figures of one process between the markers of a page of the documentation."""
    text = page.read_text("utf-8")
    before, after = text.partition(ONE_PROCESS)[0], text.partition(END_OF_PROCESS)[2]
    body = "\n".join(_process(results))
    page.write_text(f"{before}{ONE_PROCESS}\n\n{body}\n{END_OF_PROCESS}{after}", "utf-8")


def _process(results: Results) -> Iterable[str]:
    of_stores = {shown: results[store]["http"] for store, shown in STORES.items()}
    head = [one for shown in of_stores for one in (f"{shown}: answers/s", "CPU, µs", "of a core")]
    rows = []
    for step, what in HTTP_STEPS.items():
        row = [what]
        for found in of_stores.values():
            of = found["servers"]["lapse"][step]
            row += [
                f"{of['rate']:,.0f}",
                f"{of['cpu'] * 1e6:,.0f}",
                f"{of['rate'] * of['cpu']:.0%}",
            ]
        rows.append(row)
    yield from _table(["", *head], rows)
    start = results["sqlite"]["start"]["lapse"]["resident"] / 2**20
    connection = max(found["connection"] for found in of_stores.values()) / 1024
    waiting = results["sqlite"]["memory"]["lapse"]["per_session"]
    yield (
        f"A server takes {start:.0f} MiB when it answers first. An open connection takes "
        f"{connection:.0f} KiB, and a waiting session {max(0.0, waiting):.0f} bytes, which are "
        "SQLite's page caches."
    )
    yield ""


def _summary(results: Results, verdicts: Sequence[Goal], details: str) -> Iterable[str]:
    facts = results["circumstances"]
    met = sum(goal.met for goal in verdicts)
    server = f" {facts['server']}." if "server" in facts else ""
    took = results.get("seconds", {})
    yield f"{facts['date']}. {facts['machine']}. {facts['versions']}.{server}"
    yield ""
    yield (
        f"**{met} of {len(verdicts)} goals met.** Each figure is a ratio of this run; "
        f"[{details}]({details}) has what they are made of."
    )
    yield ""
    head = [one for name in STORES.values() for one in (name, "goal")]
    yield from _table(["", *head], [_row(what, verdicts) for what in _rows(verdicts)])
    yield "![Share of each goal that was reached](ratios.svg)"
    yield ""
    if took:
        parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in took.items())
        yield f"It took {sum(took.values()) / 60:.0f} minutes: {parts}."
        yield ""


def _rows(verdicts: Sequence[Goal]) -> list[str]:
    return list(dict.fromkeys(goal.what for goal in verdicts))


def _row(what: str, verdicts: Sequence[Goal]) -> list[str]:
    of_store = {goal.store: goal for goal in verdicts if goal.what == what}
    row = [what]
    for store in STORES:
        goal = of_store.get(store)
        if goal is None:
            row += ["", ""]
            continue
        note = f" ({goal.note})" if goal.note else ""
        figure = _number(goal.value)
        shown = f"{figure} met{note}" if goal.met else f"**{figure} missed**{note}"
        row += [shown, f"{'≥' if goal.at_least else '≤'} {goal.bound:g}"]
    return row


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _details(results: Results) -> Iterable[str]:
    yield "# What the ratios are made of"
    yield ""
    yield "Medians of the run of [the results](README.md#results). Written by `bench/report.py`."
    yield ""
    sections = {
        "http": _http,
        "start": _start,
        "services": _services,
        "floor": _floor,
        "sweep": _sweep,
        "growth": _growth,
        "lateness": _lateness,
        "memory": _memory,
    }
    for store, shown in STORES.items():
        for section, lines in sections.items():
            if section in results.get(store, {}):
                yield from lines(results[store], store, shown)


def _services(results: Any, store: str, shown: str) -> Iterable[str]:
    found = results["services"]
    for callers in CALLERS:
        yield f"## {shown}: session services, {callers} concurrent caller{'s' * (callers > 1)}"
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
    yield f"## {shown}: sweep"
    yield ""
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
    beside = found["beside"]
    yield from _table(
        [
            "8 callers, 20 ms between calls", "idle p50 ms", "beside the drain", "idle p99 ms",
            "beside the drain", "drained/s",
        ],
        [
            [
                operation,
                *(
                    f"{beside[operation][number] * 1e3:.2f}"
                    for number in ("idle_p50", "during_p50", "idle_p99", "during_p99")
                ),
                f"{beside['rate']:,.0f}",
            ]
            for operation in ("create", "message")
        ],
    )  # fmt: skip


def _growth(results: Any, _store: str, shown: str) -> Iterable[str]:
    found = results["growth"]
    yield f"## {shown}: few and many stored sessions, 32 callers"
    yield ""
    sizes = [str(stored) for stored in found["stored"]]
    rows = [
        [OPERATIONS[operation], *(f"{of[size]['cpu'] * 1e6:,.0f}" for size in sizes)]
        for operation, of in found["operations"].items()
    ]
    idle = (f"{found['idle'][size]['p50'] * 1e6:,.0f}" for size in sizes)
    yield from _table(
        ["stored", *(f"{int(size):,}" for size in sizes)],
        [
            *([f"{what}, CPU µs", *cells] for what, *cells in rows),
            ["sweep with nothing due, µs", *idle],
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


def _lateness(results: Any, _store: str, shown: str) -> Iterable[str]:
    found = results["lateness"]
    shares = ", ".join(f"{count:,}" for count in found["by_replica"])
    yield f"## {shown}: lateness, {found['sessions']:,} due within {found['within']:.0f} s"
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
    yield f"## {shown}: memory"
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
    yield f"## {shown}: servers, one worker"
    yield ""
    servers = found["servers"]
    rows = [
        [
            what if server is SERVERS[store][0] else "",
            server.label,
            f"{of[step]['rate']:,.0f}",
            f"{servers['lapse'][step]['rate'] / of[step]['rate']:.2f}",
            f"{of[step]['cpu'] * 1e6:,.0f}",
            f"{of[step]['p50'] * 1e3:.1f}",
            f"{of[step]['p99'] * 1e3:.1f}",
            f"{of[step]['first_body_p50'] * 1e3:.1f}",
        ]
        for step, what in HTTP_STEPS.items()
        for server in SERVERS[store]
        for of in [servers[server.name]]
        if step in of
    ]
    yield from _table(
        [
            "", "", "answers/s", "Lapse ÷ it", "CPU µs", "p50 ms", "p99 ms",
            "first byte of the body, p50 ms",
        ],
        rows,
    )  # fmt: skip
    for server in SERVERS[store]:
        of = servers[server.name]
        wrong = ", ".join(f"{count} {what}" for what, count in of["wrong"].items()) or "none"
        resident = of["after"]["resident"] / 2**20
        yield f"{server.label}: {resident:.0f} MiB resident at the end; wrong answers: {wrong}."
        yield ""
    busiest = max(
        of[step]["client_busy"] for of in servers.values() for step in HTTP_STEPS if step in of
    )
    yield (
        f"The load generator reached {found['ceiling']:,.0f} requests/s against a server that "
        f"does nothing; it was never more than {busiest:.0%} busy."
    )
    yield ""


def _start(results: Any, store: str, shown: str) -> Iterable[str]:
    found = results["start"]
    yield f"## {shown}: from the start of the process to the first answer"
    yield ""
    yield from _table(
        ["", "seconds", "CPU seconds", "resident MiB"],
        [
            [
                server.label,
                f"{found[server.name]['seconds']:.2f}",
                f"{found[server.name]['cpu']:.2f}",
                f"{found[server.name]['resident'] / 2**20:.0f}",
            ]
            for server in SERVERS[store]
            if server.name in found
        ],
    )


_SPREAD: Final = ("minimum", "p50", "p99", "maximum")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""
