"""The matrix of ADK's versions, its page, and what the package declares, agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter

import matrix

from lapse.adk.private.versions import SINCE

PAGE = matrix.PAGE.read_text("utf-8")
ROWS = dict(re.findall(r"(?m)^\| (\d[\d.]+) \| (.*) \|$", PAGE.partition("<!-- results -->")[0]))
PROJECT = tomllib.loads((matrix.ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_oldest_version_that_is_tried_is_the_oldest_that_is_accepted():
    (accepted,) = (one for one in PROJECT["dependencies"] if one.startswith("google-adk"))
    oldest = re.fullmatch(r"google-adk>=([\d.]+),<3", accepted)
    assert oldest is not None
    assert f"{oldest[1]}.0" == matrix.OLDEST
    assert {*matrix.SHORT_VERSIONS} < {*matrix.VERSIONS}


def test_the_page_says_of_everything_that_came_later_with_which_version_it_did():
    for name, version in SINCE.items():
        scheme = re.fullmatch(r"google\.adk\.integrations\.(redis|mongodb|firestore)", name)
        said = f"`{scheme[1]}://`" if scheme else f"`--{name.replace('_', '-')}`"
        match name:
            case "a folder that is itself an agent":
                said = name
            case "google.adk.integrations.openai":
                said = "`--local-llm`"
            case "trigger_sources" | "trigger_oidc_service_accounts":
                continue  # no use without the audience
            case "trigger_oidc_audience":
                said = "`--trigger-oidc-audience`"
            case "express_mode":
                continue  # no use without the app's name
        assert said.casefold() in ROWS[version].casefold(), name


def test_the_results_on_the_page_are_of_the_versions_that_are_tried():
    results = re.search(r"(?s)<!-- results -->\n(.*?)<!-- end of results -->", PAGE)[1]
    rows = re.findall(r"(?m)^\| (\d[\d.]+) \| (\d+) \| \d+ \| (\d+) \|$", results)
    assert tuple(version for version, *_ in rows) == matrix.VERSIONS
    assert {failed for *_, failed in rows} == {"0"}


def test_a_report_is_read_as_pytest_writes_it(tmp_path):
    (tmp_path / "test_three.py").write_text(
        "import pytest\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert False\n"
        "@pytest.mark.skip('ADK 2.0: no')\n"
        "def test_is_skipped(): pass\n"
        "def test_cannot_begin(nothing): pass\n"
    )
    report = tmp_path / "report.xml"
    asked = ["-q", "-c", "/dev/null", "-p", "no:cacheprovider", f"--junitxml={report}", "."]
    subprocess.run([sys.executable, "-m", "pytest", *asked], check=False, cwd=tmp_path)
    found = matrix.read("2.0.0", report, 1.5)
    assert (found.passed, found.skipped) == (1, Counter({"ADK 2.0: no": 1}))
    assert sorted(found.failed) == ["test_three::test_cannot_begin", "test_three::test_fails"]
    assert matrix.table([found]).splitlines() == [
        "| google-adk | passed | skipped | failed |",
        "|---|---|---|---|",
        "| 2.0.0 | 1 | 1 | 2 |",
        "",
        "| skipped because | 2.0.0 |",
        "|---|---|",
        "| ADK 2.0: no | 1 |",
    ]
