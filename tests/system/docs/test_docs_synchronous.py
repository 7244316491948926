"""The programs of docs/synchronous.md run as they are printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving import environment

PAGE = Path(__file__).parents[3] / "docs" / "synchronous.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_has_programs() -> None:
    assert len(PROGRAMS) == 2


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_of_the_page_runs(number: int, tmp_path: Path) -> None:
    """Seen to fail with a sweeper that stays with its first event loop."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAMS[number]],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] in {"1 session", "True"}
    assert "Traceback" not in ended.stderr
    assert "never retrieved" not in ended.stderr
