"""Tests Lapse with the newest release of all that it needs, whatever its upper bounds say.

It makes an environment of its own in build/newest, runs the tests that do not take long, or those
that are named, and prints what is newer than pyproject.toml allows, and which tests fail.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).parents[1]
PLACE: Final = ROOT / "build" / "newest"
LEFT_OUT: Final = {"llm"}
"""Extras whose newest release has to be compiled."""


def wanted(project: dict[str, Any]) -> Iterator[Requirement]:
    """Yield what Lapse, its extras and its tests ask for."""
    yield from map(Requirement, project["project"]["dependencies"])
    for extra, lines in project["project"]["optional-dependencies"].items():
        if extra not in LEFT_OUT:
            yield from map(Requirement, lines)
    groups = project["dependency-groups"]

    def of_group(name: str) -> Iterator[Requirement]:
        for line in groups[name]:
            if isinstance(line, dict):
                yield from of_group(line["include-group"])
            else:
                yield Requirement(line)

    yield from of_group("test")


def without_upper_bound(one: Requirement) -> str:
    """Return a requirement that any newer release meets, too."""
    lower = ",".join(str(spec) for spec in one.specifier if spec.operator in {">=", ">", "!="})
    extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
    marker = f"; {one.marker}" if one.marker else ""
    return f"{one.name}{extras}{lower}{marker}"


def installed(python: Path) -> dict[str, Version]:
    """Return the versions in the new environment."""
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    found = distributions(path=[str(packages)])
    return {canonicalize_name(one.name): Version(one.version) for one in found}


def table(requirements: list[Requirement], versions: dict[str, Version]) -> Iterator[str]:
    """Yield a line for each package that is newer than its range allows."""
    ranges: dict[str, Requirement] = {}
    for one in requirements:
        ranges.setdefault(canonicalize_name(one.name), one)
    beyond = [
        (name, str(one.specifier), str(versions[name]))
        for name, one in sorted(ranges.items())
        if name in versions and not one.specifier.contains(versions[name], prereleases=True)
    ]
    yield f"{len(ranges)} packages are asked for, {len(beyond)} are newer than allowed"
    if beyond:
        widths = [max(map(len, column)) for column in zip(*beyond, strict=True)]
        for row in beyond:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(cells).rstrip()


def failures(report: Path) -> Iterator[str]:
    """Yield a line for each test that failed, by pytest's own report."""
    cases = [*ET.parse(report).getroot().iter("testcase")]  # noqa: S314 - pytest has written it
    failed = [
        (case, fault) for case in cases for fault in case if fault.tag in {"failure", "error"}
    ]
    yield f"{len(cases)} tests, {len(failed)} failed"
    for case, fault in failed:
        says = re.sub(r"\s+", " ", fault.get("message", ""))[:100]
        yield f"{case.get('classname')}::{case.get('name')}: {says}"


def main(tests: list[str]) -> int:
    """Install, test, report; the status is pytest's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    requirements = list(wanted(project))
    venv.create(PLACE, with_pip=True, clear=True)
    python = PLACE / "bin" / "python"
    pip = (str(python), "-m", "pip", "install", "--quiet")
    subprocess.run([*pip, "--upgrade", "pip"], check=True)
    subprocess.run([*pip, *sorted(map(without_upper_bound, requirements))], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True)
    report = PLACE / "report.xml"
    suites = ["-n", "auto", "-q", "-m", "not long", f"--junitxml={report}", *tests]
    done = subprocess.run([str(python), "-m", "pytest", *suites], cwd=ROOT, check=False)
    print()
    for line in (*table(requirements, installed(python)), *failures(report)):
        print(line)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
