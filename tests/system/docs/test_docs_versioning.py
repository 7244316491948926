"""The Pythons of `docs/versioning.md` are the ones that the package declares."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_each_python_that_is_declared_was_tried_and_the_oldest_is_the_oldest_accepted():
    """Seen to fail with a classifier for 3.15 and no row for it."""
    page = (ROOT / "docs" / "versioning.md").read_text("utf-8")
    tried = re.findall(r"(?m)^\| (3\.\d+) \|", page)
    name = r"Programming Language :: Python :: (3\.\d+)"
    declared = [found[1] for one in PROJECT["classifiers"] if (found := re.fullmatch(name, one))]
    assert declared == tried
    assert PROJECT["requires-python"] == f">={tried[0]}"
