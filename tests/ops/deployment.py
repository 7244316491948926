"""What the files of `ops/` say, and what all of them have to keep: commands and settings exist."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from lapse.cli.main import app as commands
from lapse.settings import load_settings, setting_names

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"

PUBLIC = {"/livez", "/readyz", "/metrics"}
"""The routes that machines ask for; `test_ops_routes.py` asks a real server for each."""


def module(name: str) -> Any:
    """Return a module of the group `deploy`; without it the test is skipped, but not in CI."""
    if "CI" not in os.environ:
        pytest.importorskip(name, reason=f"NO {name}: `make test-deploy` installs it")
    return importlib.import_module(name)


def program(name: str) -> str:
    """Return the path of a program; without it the test is skipped, but not in CI."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        if "CI" in os.environ:
            pytest.fail(f"there is no {name}")
        pytest.skip(f"NO {name}: `make test-deploy` or apt-get install brings it")
    return found


def check_command(arguments: Iterable[str]) -> None:
    """Check that `lapse ARGUMENTS` is a command with options that it has."""
    name, *rest = arguments
    group = typer.main.get_command(commands)
    with group.make_context("lapse", [name]) as above:
        group.commands[name].make_context(name, rest, parent=above).close()


def check_settings(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    """Check that variables named like settings are settings, with values that they take."""
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    load_settings()
