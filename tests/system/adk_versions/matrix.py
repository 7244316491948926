"""Runs the suites of ADK's contract, of HTTP and of runs with several versions of ADK.

Each version has an environment of its own below `build/adk`, made when it is missing or when
pyproject.toml has changed. `make test-adk` runs all of them, `make test-adk-short` what CI runs.
It ends with status 1 where a test fails or an environment cannot be made.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import time
import venv
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
BUILD: Final = ROOT / "build" / "adk"
PAGE: Final = ROOT / "docs" / "adk_versions.md"
OLDEST: Final = "1.28.0"
LAST_OF_1: Final = "1.39.1"
VERSIONS: Final = (OLDEST, LAST_OF_1, "2.0.0", "2.4.0", "2.8.0", "2.13.0")
"""The oldest, the last 1.x, three in between, and the newest."""

WHOLE: Final = ("tests/adk", "tests/web", "tests/runs")
SHORT_VERSIONS: Final = (OLDEST,)
SHORT_SUITES: Final = (
    "tests/adk/test_adk_versions.py",
    "tests/adk/test_adk_private.py",
    "tests/adk/test_adk_interop.py",
    "tests/adk/test_adk_append.py",
    "tests/adk/test_adk_runner.py",
    "tests/web/test_web_mount.py",
    "tests/runs/test_runs_http.py",
)
"""Sessions and their rows, stock ADK on the same file, a Runner, `mount`, and `lapse serve`."""

SUITES: Final = (
    *SHORT_SUITES,
    "tests/adk/test_adk_create.py",
    "tests/adk/test_adk_stale.py",
    "tests/adk/test_adk_lookups.py",
    "tests/web/test_web_bad_input.py",
    "tests/web/test_web_health.py",
    "tests/runs/test_runs_doubt.py",
)
"""More of ADK's contract, of HTTP and of runs: what asks the most of ADK."""

_RESULTS: Final = re.compile(r"(?s)(?<=<!-- results -->\n).*?(?=<!-- end of results -->)")


@dataclass(frozen=True, slots=True)
class Result:
    """What one version came to.

    Attributes:
        version: of ADK.
        passed: how many tests passed.
        failed: the names of those that did not.
        skipped: how many were skipped, by the reason.
        seconds: how long they took.
    """

    version: str
    passed: int
    failed: Sequence[str]
    skipped: Counter[str]
    seconds: float


def environment_of(version: str) -> Path:
    """Return the Python of an environment with a version of ADK; make it if it is missing."""
    folder = BUILD / f"{version}-py{sys.version_info[0]}.{sys.version_info[1]}"
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text("ascii") == wanted:
        return python
    print(f"google-adk {version}: making {folder.relative_to(ROOT)}", flush=True)
    venv.create(folder, with_pip=True, clear=not python.exists())
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    asked = ["--editable", str(ROOT), f"google-adk[a2a]=={version}", "--group", "test-adk"]
    subprocess.run([*pip, *asked], check=True, cwd=ROOT)
    stamp.write_text(wanted, "ascii")
    return python


def result_of(version: str, suites: Sequence[str], workers: int) -> Result:
    """Run suites with a version of ADK."""
    python = environment_of(version)
    print(f"google-adk {version}: {' '.join(suites)}", flush=True)
    report = BUILD / f"{version}.xml"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    options = ["-q", "-m", "not long", "-n", str(workers), "-p", "no:cacheprovider"]
    if version != VERSIONS[-1]:
        # An older ADK, and what it pins, warn of themselves.
        for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
            options += ["-W", f"ignore::{kind}"]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [str(python), "-m", "pytest", *options, f"--junitxml={report}", *suites],
        check=False,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
    )
    if not report.is_file():
        return Result(version, 0, [f"pytest: status {ended.returncode}"], Counter(), 0)
    return read(version, report, time.monotonic() - began)


def read(version: str, report: Path, seconds: float) -> Result:
    """Return what a report of pytest's says."""
    passed, failed, skipped = 0, [], Counter[str]()
    for case in ET.parse(report).iter("testcase"):
        told = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif told is None:
            passed += 1
        else:
            skipped[told.get("message") or ""] += 1
    return Result(version, passed, failed, skipped, seconds)


def table(results: Sequence[Result]) -> str:
    """Return the results in Markdown: one row for each version, then why tests were skipped."""
    rows = ["| google-adk | passed | skipped | failed |", "|---|---|---|---|"]
    rows += [
        f"| {one.version} | {one.passed} | {one.skipped.total()} | {len(one.failed)} |"
        for one in results
    ]
    reasons = sorted({reason for one in results for reason in one.skipped}, key=_by_version)
    if reasons:
        heads = "".join(f" {one.version} |" for one in results)
        rows += ["", f"| skipped because |{heads}", "|---|" + "---|" * len(results)]
    for reason in reasons:
        counts = "".join(f" {one.skipped[reason] or ''} |" for one in results)
        rows.append(f"| {reason} |{counts}")
    return "\n".join(rows) + "\n"


def _by_version(reason: str) -> tuple[list[int], str]:
    found = re.match(r"ADK ([\d.]+)", reason)
    return [int(part) for part in found[1].split(".")] if found else [], reason


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help="of google-adk")
    parser.add_argument("--short", action="store_true", help="run what CI runs")
    parser.add_argument("--whole", action="store_true", help="run whole folders of tests")
    parser.add_argument("--write", action="store_true", help="put the table into its page")
    parser.add_argument("--workers", type=int, default=(os.cpu_count() or 1) + 1)
    asked = parser.parse_args()
    versions = asked.versions or (SHORT_VERSIONS if asked.short else VERSIONS)
    suites = SHORT_SUITES if asked.short else WHOLE if asked.whole else SUITES
    BUILD.mkdir(parents=True, exist_ok=True)
    results = [result_of(version, suites, asked.workers) for version in versions]
    written = table(results)
    print(f"\n{written}")
    for one in results:
        print(f"google-adk {one.version}: {one.seconds:.0f} s", *one.failed, sep="\n  ")
    if asked.write:
        page = PAGE.read_text("utf-8")
        PAGE.write_text(_RESULTS.sub(lambda _: written, page), "utf-8")
    return int(any(one.failed for one in results))


if __name__ == "__main__":
    sys.exit(main())
