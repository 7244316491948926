"""What squawk, a linter of PostgreSQL migrations, finds in the scripts, and why it may stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "src" / "lapse" / "store" / "postgres" / "schema"
SQUAWK = str(Path(sys.executable).with_name("squawk"))

EVERYWHERE = {
    "prefer-text-field": "ids are as wide as ADK's own columns, which they are joined with",
    "require-statement-timeout": "the connection has one: LAPSE_STATEMENT_TIMEOUT_SECONDS",
    "require-lock-timeout": "a statement's time includes its wait for locks",
    "require-concurrent-index-creation": "all scripts are one transaction (docs/upgrading.md)",
}
"""Rules that are excused in every script, each with the reason."""

ONE_ROW = "the table has one row"
AS_ADK = "the column is compared with ADK's, which has no time zone and is in UTC"
WIDER = "the next lines add it again, and let more values in than before"
WHOLE = "all scripts are one transaction (docs/upgrading.md)"
FEW = "the number stays small: it is bounded by its writer"
EXCUSED = {
    ("prefer-bigint-over-int", "id INTEGER PRIMARY KEY CHECK (id = 1),"): ONE_ROW,
    ("prefer-bigint-over-int", "version INTEGER PRIMARY KEY,"): "one for each script",
    ("prefer-bigint-over-int", "resurrections INTEGER NOT NULL DEFAULT 0,"): FEW,
    ("prefer-bigint-over-int", "bucket INTEGER NOT NULL,"): FEW,
    ("prefer-bigint-over-int", "shard INTEGER NOT NULL,"): FEW,
    ("prefer-bigint-over-int", "attempts INTEGER NOT NULL DEFAULT 0,"): FEW,
    ("prefer-bigint-over-int", "attempts INTEGER NOT NULL DEFAULT 0"): FEW,
    ("prefer-bigint-over-int", "attempts INTEGER NOT NULL,"): FEW,
    ("prefer-bigint-over-int", "place INTEGER PRIMARY KEY,"): FEW,
    ("prefer-timestamp-tz", "update_time TIMESTAMP WITHOUT TIME ZONE NOT NULL,"): AS_ADK,
    ("prefer-timestamp-tz", "create_time TIMESTAMP WITHOUT TIME ZONE NOT NULL,"): AS_ADK,
    ("prefer-timestamp-tz", "since TIMESTAMP WITHOUT TIME ZONE,"): AS_ADK,
    ("prefer-timestamp-tz", "until TIMESTAMP WITHOUT TIME ZONE,"): AS_ADK,
    ("ban-drop-constraint", "DROP CONSTRAINT lapse_lobby_status_check,"): WIDER,
    ("ban-drop-constraint", "DROP CONSTRAINT lapse_lobby_check,"): WIDER,
    ("require-concurrent-index-deletion", "DROP INDEX lapse_lobby_check;"): WHOLE,
}
"""Single findings that are excused: the rule and the line, and the reason."""


def test_every_finding_of_squawk_in_the_scripts_is_excused_and_every_excuse_is_needed():
    """Seen to fail with `DROP COLUMN site` in a new script, and with an excuse too many."""
    done = subprocess.run(
        [
            *(SQUAWK, "--reporter", "json", "--pg-version", "14.0", "--assume-in-transaction"),
            *map(str, sorted(SCRIPTS.glob("*.sql"))),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = {file.name: file.read_text("utf-8").splitlines() for file in SCRIPTS.glob("*.sql")}
    found = {
        (one["rule_name"], lines[Path(one["file"]).name][one["line"]].strip())
        for one in json.loads(done.stdout)
    }
    rules = {rule for rule, _ in found}
    assert EVERYWHERE.keys() <= rules
    assert {(rule, line) for rule, line in found if rule not in EVERYWHERE} == EXCUSED.keys()
