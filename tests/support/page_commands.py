"""Runs the commands of a page of the documentation, as its reader would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving import environment


def readers_environment(*folders: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a reader who has Lapse installed, and what is in `folders`."""
    path = os.pathsep.join([*map(str, (Path(sys.executable).parent, *folders)), os.environ["PATH"]])
    return environment(**variables, PATH=path)


def run_commands(
    commands: str, folder: Path, *folders: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a block of a page in a folder; the first command that fails ends it."""
    return subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=readers_environment(*folders, **variables),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def printed_by(commands: str, folder: Path, **variables: str) -> str:
    """Return what a block of a page prints; none of its commands may fail."""
    done = run_commands(commands, folder, **variables)
    assert done.returncode == 0, (commands, done.stdout, done.stderr)
    return done.stdout + done.stderr
