"""One worker against two: creates and `/run_sse` over HTTP, taking turns in one run.

    python -m bench.http.workers [--rounds 7] [--seconds 2] [--out bench/http/workers.md]

Both servers run at once, each on a database of its own; while one is asked, the other one idles.
The load generator, and PostgreSQL, share the cores with them, so what they take is told beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.http.asked import create, run
from bench.http.servers import free_port, running
from bench.http.serving import CONNECTIONS
from bench.support import pg_server
from bench.support.children import AGENTS, Child
from bench.support.places import Databases, Files, Places
from bench.support.processes import children_of, cpu_of

GOAL: Final = 1.5
_USERS: Final = 100
_STEPS: Final = {"create": '"id"', "run_sse": "noted"}
_BIN: Final = Path(sys.executable).parent


@dataclass
class Served:
    """A running server, its processes that answer, and the sessions that have had no run."""

    port: int
    pids: list[int]
    sessions: list[tuple[str, str]] = field(default_factory=list)

    def cpu(self) -> list[float]:
        return [cpu_of(pid) for pid in self.pids]


def _start(stack: ExitStack, workers: int, scratch: Path, places: Places) -> Served:
    url = stack.enter_context(places.fresh())
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
    port = free_port()
    command = [str(_BIN / "lapse"), "serve", str(AGENTS), "--store", url, "--port", str(port)]
    pid = stack.enter_context(running([*command, "--workers", str(workers)], folder))
    end = time.monotonic() + 90
    while "Lapse serves" not in (log := (folder / "server.log").read_text()):
        assert time.monotonic() < end, log
        time.sleep(0.05)
    pids = [child for child in children_of(pid) if "worker" in _title(child)] or [pid]
    assert len(pids) == workers, log
    return Served(port, pids)


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")


def _ask(
    load: Child,
    server: Served,
    step: str,
    *,
    requests: list[Any],
    seconds: float,
    places: Places,
) -> dict[str, Any]:
    before, database, began = server.cpu(), places.server_cpu(), time.perf_counter()
    answer = load.ask(
        port=server.port,
        connections=CONNECTIONS,
        requests=requests,
        seconds=seconds,
        repeat=step == "create",
        expected=_STEPS[step],
        keep=step == "create",
    )
    took, answers = time.perf_counter() - began, max(1, answer["answers"])
    assert not answer["wrong"], answer["wrong"]
    used = [after - earlier for after, earlier in zip(server.cpu(), before, strict=True)]
    server.sessions += answer.pop("kept")
    return {
        "rate": answer["rate"],
        "p50": answer["p50"],
        "p99": answer["p99"],
        "cpu": sum(used) / answers,
        "cores": sum(used) / took,
        "largest": max(used) / max(sum(used), 1e-9),
        "load": answer["client_busy"],
        "database": (places.server_cpu() - database) / took,
    }


def measure(rounds: int, seconds: float, scratch: Path, places: Places) -> dict[str, Any]:
    """Return medians by step and number of workers, and the ratio of each round."""
    samples: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    how: dict[str, Any] = {"seconds": seconds, "places": places}
    with ExitStack() as stack:
        load = stack.enter_context(Child("bench.http.load_worker", cwd=scratch))
        servers = {number: _start(stack, number, scratch, places) for number in (1, 2)}
        users = [create(f"user-{number}") for number in range(_USERS)]
        for server in servers.values():
            _ask(load, server, "create", requests=users, **how)
        for turn in range(rounds):
            print(f"  {places.store}: round {turn + 1} of {rounds}", flush=True)
            for number in ((1, 2), (2, 1))[turn % 2]:
                server = servers[number]
                taken = _ask(load, server, "create", requests=users, **how)
                samples["create"][number].append(taken)
                runs = [run(*session) for session in server.sessions]
                server.sessions.clear()
                samples["run_sse"][number].append(
                    _ask(load, server, "run_sse", requests=runs, **how)
                )
    return {
        step: {
            "of": {
                number: {name: median(one[name] for one in found) for name in found[0]}
                for number, found in by_number.items()
            },
            "ratios": sorted(
                two["rate"] / one["rate"]
                for one, two in zip(by_number[1], by_number[2], strict=True)
            ),
        }
        for step, by_number in samples.items()
    }


_HEAD: Final = """# A second worker

Written by `python -m bench.http.workers`: `lapse serve --workers 1` and `--workers 2` take turns,
each on a database of its own, with {connections} connections. {machine}. The goal is {goal} times
the answers on two cores.{busy}

*CPU* is that of all processes which answer, for one answer; *cores* is what these processes took.
The load generator and PostgreSQL share the two cores with them: what is left of two cores is the
most that a second worker can bring. *By CPU* is what two cores that are the workers' alone would
bring: twice the CPU of an answer of one worker, by that of two. *Larger share* is the part of the
CPU that the busier worker took.

"""
_BUSY: Final = """

**The machine was busy with other work**: the processes got less than the cores, so the answers per
second say little, and the CPU for one answer says more."""


def report(results: dict[str, Any], loads: tuple[float, float], rounds: int) -> str:
    """Return the page."""
    machine = (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"lapse {version('lapse')}, {rounds} rounds, load of the machine {loads[0]:.1f} before and "
        f"{loads[1]:.1f} after"
    )
    busy = _BUSY if loads[0] > (os.cpu_count() or 1) / 2 else ""
    told = [_HEAD.format(connections=CONNECTIONS, machine=machine, goal=GOAL, busy=busy)]
    told.append(
        "| store, step | workers | answers/s | p50, ms | p99, ms | CPU, µs | cores | larger share "
        "| load generator, cores | database, cores |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )
    ratios = []
    for store, steps in results.items():
        for step, found in steps.items():
            for number, one in found["of"].items():
                told.append(
                    f"| {store}, {step} | {number} | {one['rate']:,.0f} | {one['p50'] * 1e3:.0f} "
                    f"| {one['p99'] * 1e3:.0f} | {one['cpu'] * 1e6:,.0f} | {one['cores']:.2f} "
                    f"| {one['largest']:.0%} | {one['load']:.2f} | {one['database']:.2f} |\n"
                )
            by_cpu = 2 * found["of"][1]["cpu"] / found["of"][2]["cpu"]
            low, *_, high = found["ratios"]
            middle = median(found["ratios"])
            met = "met" if middle >= GOAL else "**missed**"
            of_rounds = f"{middle:.2f} ({low:.2f} to {high:.2f}) {met}"
            ratios.append(f"| {store}, {step} | {of_rounds} | {by_cpu:.2f} |\n")
    told.append("\n| two workers, of one | answers/s | by CPU |\n|---|---|---|\n")
    return "".join([*told, *ratios])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    before, results = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory(prefix="lapse-bench-") as name, ExitStack() as stack:
        scratch = Path(name)
        for store in options.stores:
            places: Places = Files(scratch)
            if store == "postgres":
                places = Databases(stack.enter_context(pg_server.running(scratch)))
            results[store] = measure(options.rounds, options.seconds, scratch, places)
    page = report(results, (before, os.getloadavg()[0]), options.rounds)
    print(page)
    if options.out:
        options.out.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
