"""Measures `lapse report` and adoption on a database of a million sessions; writes adopting.md.

make bench-adopt            # about ten minutes
.venv/bin/python -m bench.adoption.adopting --sessions 20000     # a look at it; writes nothing
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.support import pg_server
from bench.support.children import BENCH, Child

LAPSE: Final = str(Path(sys.executable).with_name("lapse"))
EVENTS: Final = 10
CALLERS: Final = 4
SECONDS: Final = 10.0
ROUNDS: Final = 3

_WORDS: Final = "Could you tell me whether the table by the window is free on Friday evening? " * 2

# Half of the sessions are empty, in the order of their keys, too; the others have ten events.
_SESSIONS: Final = """
INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
SELECT 'app' || n % 5, 'user' || n % 50000, md5(n::text)::uuid::text, '{}', at, at
FROM (
  SELECT n, (now() AT TIME ZONE 'UTC') - interval '1 day' - n * interval '20 s' AS at
  FROM generate_series(1, $SESSIONS) AS n
) AS made
"""
_EVENTS: Final = """
INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
SELECT 'ev-' || turn, s.app_name, s.user_id, s.id, 'e-' || turn / 2,
  s.create_time + turn * interval '40 s',
  jsonb_build_object(
    'id', 'ev-' || turn, 'invocation_id', 'e-' || turn / 2,
    'author', CASE turn % 2 WHEN 1 THEN 'user' ELSE 'concierge' END, 'timestamp', 1.5,
    'content', jsonb_build_object(
      'role', 'user', 'parts', jsonb_build_array(jsonb_build_object('text', '$WORDS'))
    ),
    'actions', '{"state_delta": {}, "artifact_delta": {}, "requested_auth_configs": {},
      "requested_tool_confirmations": {}}'::jsonb, 'node_info', '{"path": ""}'::jsonb
  )
FROM sessions AS s, generate_series(1, $EVENTS) AS turn
WHERE get_byte(decode(md5(s.id), 'hex'), 0) < 128
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    sessions = parser.parse_args().sessions
    (BENCH / "out").mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=BENCH / "out", prefix="adopting-"))
    found: dict[str, Any] = {"sessions": sessions, "load": [os.getloadavg()[0]]}
    try:
        with pg_server.running(scratch) as server:
            found["postgres"] = _postgres(server, sessions, scratch)
            found["server"] = pg_server.settings(server)
        found["load"].append(os.getloadavg()[0])
        found["sqlite"] = _sqlite(scratch / "stock.db", sessions)
        found["load"].append(os.getloadavg()[0])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    (BENCH / "out" / "adopting.json").write_text(json.dumps(found, indent=2))
    page = _page(found)
    print(page)
    if sessions == 1_000_000:
        Path(__file__).with_name("adopting.md").write_text(page)


def _postgres(server: pg_server.Server, sessions: int, scratch: Path) -> dict[str, Any]:
    url = server.make("stock")
    subprocess.run([LAPSE, "migrate", "--store", url], check=True, capture_output=True)
    server.run(
        "stock",
        "ALTER TABLE events DROP CONSTRAINT events_app_name_user_id_session_id_fkey",
        "DROP INDEX idx_events_app_user_session_ts_id",
        _SESSIONS.replace("$SESSIONS", str(sessions)),
        _EVENTS.replace("$EVENTS", str(EVENTS)).replace("$WORDS", _WORDS),
        "CREATE INDEX idx_events_app_user_session_ts_id ON events"
        " (app_name, user_id, session_id, timestamp DESC, id DESC)",
        "ALTER TABLE events ADD FOREIGN KEY (app_name, user_id, session_id)"
        " REFERENCES sessions (app_name, user_id, id) ON DELETE CASCADE",
        "INSERT INTO app_states SELECT DISTINCT app_name, '{}'::jsonb, now() FROM sessions",
        "INSERT INTO user_states"
        " SELECT DISTINCT app_name, user_id, '{}'::jsonb, now() FROM sessions",
        "VACUUM ANALYZE",
        "CHECKPOINT",
    )
    found: dict[str, Any] = {"report": [_report(url) for _ in range(ROUNDS)]}
    found["adopting"] = _adoption(url, scratch)
    return found


def _adoption(url: str, scratch: Path) -> dict[str, Any]:
    """Adopt at full speed alone, then beside callers who append, with and without a rate."""
    found: dict[str, Any] = {}
    with Child("bench.adoption.adopting_worker", "load", cwd=scratch) as load:
        load.ask(do="open", url=url)
        with Child("bench.adoption.adopting_worker", "adopt", cwd=scratch) as adopter:
            adopter.ask(do="open", url=url)
            found["alone"] = adopter.ask(do="adopt", seconds=SECONDS, rate=None)
            for name, rate in (
                ("unthrottled", None),
                ("--rate 5500", 5_500),
                ("--rate 1000", 1_000),
            ):
                before = load.ask(do="load", seconds=SECONDS, callers=CALLERS)
                load.send(do="load", seconds=SECONDS, callers=CALLERS)
                taken = adopter.ask(do="adopt", seconds=SECONDS, rate=rate)
                during = load.receive()
                after = load.ask(do="load", seconds=SECONDS, callers=CALLERS)
                found[name] = {
                    "rate": taken["rate"],
                    "before": before["rate"],
                    "during": during["rate"],
                    "after": after["rate"],
                    "kept": 2 * during["rate"] / (before["rate"] + after["rate"]),
                    "p99_before": before["p99"],
                    "p99_during": during["p99"],
                }
    return found


def _sqlite(file: Path, sessions: int) -> dict[str, Any]:
    subprocess.run(
        [LAPSE, "migrate", "--store", f"sqlite:///{file}"], check=True, capture_output=True
    )
    event = json.dumps(
        {
            "content": {"parts": [{"text": _WORDS}], "role": "user"},
            "invocation_id": "e-1",
            "author": "user",
            "actions": {"state_delta": {}, "artifact_delta": {}, "requested_auth_configs": {}},
            "node_info": {"path": ""},
            "id": "ev-1",
            "timestamp": 1.5,
        }
    )
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "INSERT INTO sessions WITH RECURSIVE c(n) AS "
            "(SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?) "
            "SELECT 'app' || n % 5, 'user' || printf('%05d', n % 50000), "
            "printf('%08x-0000-4000-8000-%012d', n * 2654435761 % 4294967296, n), '{}', at, at "
            "FROM (SELECT n, datetime('now', '-1 day', (-20 * n) || ' seconds') || '.000000' AS at"
            " FROM c) ORDER BY 1, 2, 3",
            (sessions,),
        )
        connection.execute(
            "INSERT INTO events WITH RECURSIVE t(turn) AS "
            "(SELECT 1 UNION ALL SELECT turn + 1 FROM t WHERE turn < ?) "
            "SELECT 'ev-' || turn, app_name, user_id, id, 'e-1', "
            "datetime(create_time, (40 * turn) || ' seconds') || '.000000', ? "
            "FROM sessions, t WHERE sessions.rowid % 2",
            (EVENTS, event),
        )
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = file.stat().st_size
    return {"bytes": size, "report": [_report(f"sqlite:///{file}") for _ in range(ROUNDS)]}


def _report(url: str) -> dict[str, Any]:
    """Run the command, and return its time, its greatest memory and what it counted."""
    began = time.perf_counter()
    process = subprocess.Popen([LAPSE, "report", url, "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = json.loads(process.stdout.read())
    _, _, usage = os.wait4(process.pid, 0)
    return {
        "seconds": time.perf_counter() - began,
        "mib": usage.ru_maxrss / 1024,
        "cpu": usage.ru_utime + usage.ru_stime,
        "empty": told["empty"],
        "used": told["used"],
        "load": os.getloadavg()[0],
    }


def _page(found: dict[str, Any]) -> str:
    rows = []
    for store, goal in (("postgres", 10), ("sqlite", 20)):
        runs = sorted(found[store]["report"], key=lambda run: run["seconds"])
        middle = runs[len(runs) // 2]
        rows.append(
            f"| `lapse report`, {store} | {middle['seconds']:.1f} s "
            f"(best {runs[0]['seconds']:.1f}) "
            f"| < {goal} s | {middle['mib']:.0f} MiB, goal < 200 MiB; the command itself used "
            f"{middle['cpu']:.1f} s of a core; {middle['empty']:,} empty, "
            f"{middle['used']:,} used; load {middle['load']:.1f} |"
        )
    adopting = found["postgres"]["adopting"]
    rows.append(
        f"| adoption alone, postgres | {adopting['alone']['rate']:,.0f} sessions/s | ≥ 5,000 | |"
    )
    for name in ("unthrottled", "--rate 5500", "--rate 1000"):
        part = adopting[name]
        rows.append(
            f"| adoption beside {CALLERS} callers, {name} | {part['rate']:,.0f} sessions/s; they "
            f"keep {part['kept']:.0%} | ≥ 5,000 and ≥ 80 % | append_event {part['before']:,.0f}/s "
            f"before, {part['during']:,.0f}/s meanwhile, {part['after']:,.0f}/s after; p99 "
            f"{part['p99_before']:.1f} → {part['p99_during']:.1f} ms |"
        )
    table = "\n".join(rows)
    loads = ", ".join(f"{load:.1f}" for load in found["load"])
    return f"""\
# Report and adoption

    make bench-adopt

{found["sessions"]:,} sessions in stock ADK's form, half of them empty, the others with
{EVENTS} events each. `lapse report` is the whole command, its start included; the median of
{ROUNDS}. Adoption is measured for {SECONDS:.0f} s each, in a process of its own, beside another one
in which {CALLERS} callers append to used sessions through `LapseSessionService`, one event
after the other: a load that takes all it can get. They are measured before, meanwhile and after;
what they keep is the rate meanwhile over the mean of the other two.

| | measured | goal | |
|---|---|---|---|
{table}

{found["server"]}; SQLite {sqlite3.sqlite_version};
Python {sys.version.split()[0]}; {os.cpu_count()} cores, shared with others: the load average was
{loads} at the beginning, between and at the end ({datetime.now(UTC):%Y-%m-%d}).
"""


if __name__ == "__main__":
    main()
