"""Which store a command works on: how it is named, and what is told of it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest

from calling import Caller
from lapse.cli.adoption import _undo_command
from serving import LAPSE, environment, lapse, serving

pytestmark = pytest.mark.long


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return Caller(monkeypatch, capsys, f"sqlite:///{tmp_path}/own.db")


@pytest.mark.parametrize("stock_database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("way", ["argument", "option", "environment"])
def test_report_adopt_undo_and_copy_take_the_store_as_argument_option_or_setting(
    command, stock_database_url, way
):
    """Seen to fail with `report` as it was: No such option: --store."""

    def on_store(name, *arguments):
        match way:
            case "argument":
                return command.bare(name, stock_database_url, *arguments)
            case "option":
                return command.bare(name, "--store", stock_database_url, *arguments)
            case _:
                return command.bare(name, *arguments, LAPSE_STORE_URL=stock_database_url)

    assert on_store("report", "--json").json["empty"] == 4
    adopted = on_store("adopt", "--yes", "--json").json
    assert adopted["adopted"] == 4
    assert [run["run"] for run in on_store("undo", "--json").json["runs"]] == [adopted["run"]]
    target = f"sqlite:///copy-{way}.db"
    copied = {
        "argument": lambda: command.bare("copy", stock_database_url, target),
        "option": lambda: command.bare("copy", stock_database_url, "--store", target),
        "environment": lambda: command.bare("copy", stock_database_url, LAPSE_STORE_URL=target),
    }[way]()
    assert "lapse_lobby: 4 rows" in copied.out


def test_two_stores_are_one_too_many(command):
    for name in ("report", "adopt", "undo"):
        refused = command.bare(name, "sqlite:///one.db", "--store", "sqlite:///two.db")
        assert refused.status == 2
        assert "name one store" in refused.err


@pytest.mark.parametrize("stock_database_url", ["sqlite"], indirect=True)
def test_the_command_that_undoes_an_adoption_works_as_printed(stock_database_url, tmp_path):
    told = lapse(tmp_path, "adopt", stock_database_url, "--yes")
    printed = re.search(r"to put them back: (lapse .*)$", told.stdout, re.MULTILINE)[1]
    path = f"{LAPSE.rpartition('/')[0]}:/usr/bin:/bin"
    done = subprocess.run(
        ["/bin/sh", "-c", printed],
        env=environment() | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "put back 4 sessions" in done.stdout, done.stderr
    listed = lapse(tmp_path, "undo", stock_database_url).stdout
    assert shlex.join(["lapse", "undo", stock_database_url, "--run"]) in listed


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        (None, "lapse undo --run r"),
        ("sqlite:///a b.db", "lapse undo 'sqlite:///a b.db' --run r"),
        (
            "postgresql://lapse:secret@db/lapse",
            (
                "lapse undo postgresql://lapse@db/lapse --run r"
                "  # with what is left out of the URL: its password"
            ),
        ),
    ],
)
def test_the_printed_command_names_the_store_as_it_was_given_and_never_a_password(given, printed):
    assert _undo_command(given, "r") == printed


@pytest.mark.parametrize("stock_database_url", ["sqlite"], indirect=True)
def test_nobody_is_asked_whether_to_adopt_nothing(command, stock_database_url):
    """Seen to fail with the question `Adopt 0 sessions?`, which ends a command without input."""
    nothing = ("adopt", stock_database_url, "--app", "none")
    told = command.bare(*nothing)
    assert (told.status, told.out.splitlines()[-1]) == (0, "nothing to adopt")
    assert "?" not in told.err
    assert command.bare(*nothing, "--json").json["adopted"] == 0


def test_a_new_store_is_named_once_when_it_is_created(tmp_path):
    """Seen to fail without the line: started elsewhere, all sessions seem to be gone."""
    logs = []
    for _ in range(2):
        with serving(tmp_path) as server:
            logs.append(server.log)
    assert [log.count(f"a new store was created: {tmp_path}/lapse.db") for log in logs] == [1, 0]
    shutil.rmtree(tmp_path)
