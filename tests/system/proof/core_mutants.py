"""What mutmut has found in the core, as a part of the page of mutants."""

import json
import re
import subprocess
import sys
from pathlib import Path

FOUND = Path("mutants") / "mutmut-cicd-stats.json"
SAME = (
    (r"strict=|key\)?, \)", "a key has three parts, always"),
    (r"UNICODE_ESCAPE", "another name of the same codec"),
    (r"(pending|stopping|here) = None|may_wake=None", "as false as what was there"),
    (r"rest >= 0", "a pause of no time, or none"),
    (r"moment <= ", "it is woken at the moment at which it wakes"),
    (r"return False", "a run that has ended is cancelled once more, for nothing"),
    (r"pop\(other, \)", "nobody else drops things of a closed loop meanwhile"),
    (r'= ""$', "nobody looks before it is set"),
    (r"_failed\(error\), may_wake=True", "the rest of the pause follows before the step"),
)
"""Why a mutant that survives is no fault, by a pattern of the line that it puts in."""


def section():
    """Return the lines of the page about the last run of mutmut, none if there is none."""
    if not Path("mutants").is_dir():
        return []
    _mutmut("export-cicd-stats")
    found = json.loads(FOUND.read_text("utf-8"))
    endless, total = found["timeout"], found["total"]
    killed = found["killed"] + endless
    alive = [
        line.split(":")[0].strip() for line in _mutmut("results").splitlines() if "surviv" in line
    ]
    return [
        "## The core",
        "",
        "mutmut changes the modules of `src/lapse/core` that decide, and runs the tests of",
        f"`tests/core` that meet the change. Of {total} mutants {killed} are killed",
        f"({killed / total:.1%}), {endless} of them because a test did not end;",
        f"{found['no_tests']} are met by no test. What survives:",
        "",
        *map(_told, alive),
        "",
    ]


def _told(name):
    lines = _mutmut("show", name).splitlines()
    was, became = (
        " ".join(one[1:].strip() for one in lines if one[:1] == sign and one[:3] != 3 * sign)
        for sign in "-+"
    )
    reasons = (reason for pattern, reason in SAME if re.search(pattern, became))
    where = re.sub(r"x_|xǁ|__mutmut_\d+$", "", name.removeprefix("lapse.core.")).replace("ǁ", ".")
    return f"- `{where}`: `{was}` → `{became}` ({next(reasons, '**not explained**')})"


def _mutmut(*arguments):
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
