"""`docs/command_line.md` says what the code does: exit statuses, commands, fields of JSON."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from typer.main import get_command

from lapse.cli.command import Exit
from lapse.cli.main import app
from lapse.overview.json import brake_json, overview_json
from lapse.overview.store import Overview
from lapse.retention.json import standing_json
from lapse.retention.levels import RetentionLevels
from lapse.retention.state import RetentionState
from lapse.sweep.rules import Brake, BrakeReason

PAGE = (Path(__file__).parents[3] / "docs" / "command_line.md").read_text("utf-8")


def test_the_exit_statuses_on_the_page_are_those_of_the_code():
    stated = re.findall(r"^\| (\d) \|", PAGE, re.MULTILINE)
    assert [int(number) for number in stated] == list(Exit)


def test_the_page_names_every_command():
    commands = get_command(app).commands
    assert {
        name for name in commands if f"`lapse {name}" not in PAGE and f"`{name}`" not in PAGE
    } == set()


def fields(command):
    (row,) = re.findall(rf"^\| `{command}` \| (.*) \|$", PAGE, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


def test_the_fields_of_stats_are_documented():
    now = datetime.now(UTC)
    brake = Brake(BrakeReason.SHARE, now, now)
    document = overview_json(Overview(now, (), (), None, None, None, brake), timedelta(hours=1))
    levels = RetentionLevels(now, 0, 0, 0, 0, None, is_braked=False)
    retention = standing_json(RetentionState(None, None, (), timedelta(0), None, levels))
    assert {*document, "retention", *retention} == fields("stats") - {"appName"}
    (row,) = re.findall(r"^`brake` is null, or (.*)\.$", PAGE, re.MULTILINE)
    assert set(brake_json(brake)) == set(re.findall(r"`(\w+)`", row)) - {"share", "clock"}
