"""Each nemesis runs, finds the builds that are broken for it, and what it finds is told."""

import re
from pathlib import Path

import found as found_module
import lines
import nemeses
import prove
import pytest
import report
import soak
from found import Found, Kept
from nemeses import BY_NAME, NEMESES

from history import History, Stored

ROOT = Path(__file__).parents[3]
QUICK = ("simulation", "hand-over")
"""What needs no server and no process of its own."""

BROKEN = [(one.name, broken) for one in NEMESES for broken in one.breaks]


async def played(name, seed, folder, broken=None):
    return await prove.play(BY_NAME[name], seed, folder, broken)


@pytest.mark.parametrize("name", QUICK)
async def test_a_quick_nemesis_runs_a_round(name, tmp_path):
    n, fault = await played(name, 0, tmp_path)
    assert fault is None
    assert n > 0


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [one.name for one in NEMESES if one.name not in QUICK])
async def test_every_other_nemesis_runs_a_round(name, tmp_path):
    _, fault = await played(name, 0, tmp_path)
    assert fault is None


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "broken"), BROKEN)
async def test_each_nemesis_finds_the_builds_that_are_broken_for_it(name, broken, tmp_path):
    nemesis = BY_NAME[name]
    for seed in range(prove.ENOUGH):
        _, fault = await prove.play(nemesis, seed, tmp_path, broken)
        if fault is not None:
            return
    pytest.fail(f"{name} does not find {broken!r}")


async def test_a_round_has_files_of_its_own_and_not_those_of_one_that_has_failed(tmp_path):
    """Seen to fail with one folder for all: a kill then met the sessions of a broken build."""

    async def play(_seed, folder, broken):
        (folder / "left").touch(exist_ok=False)
        assert broken is None, "it is broken"
        return 1

    nemesis = nemeses.Nemesis("odd", "It is odd.", "trials", 100, play, ("one",))
    assert await prove.catch(nemesis, 0, tmp_path) == {"one": 1}
    assert await prove.play(nemesis, 0, tmp_path) == (1, None)


async def test_the_same_seed_finds_the_same(tmp_path):
    """The simulation is deterministic, to the step at which a broken build is found."""
    first, second = [await played("simulation", 1, tmp_path, "half a commit") for _ in range(2)]
    assert first == second
    assert first[1] is not None


async def test_a_violation_is_told_with_the_command_that_plays_it_again(tmp_path, monkeypatch):
    """Seen to fail with a seed that is not the round's."""

    async def play(seed, _folder, _broken):
        assert seed != 8, "it is lost"
        return 3

    nemesis = nemeses.Nemesis("odd", "It is odd.", "trials", 100, play, ("none",))
    found = await prove.search(nemesis, 8, prove.Most(0, 9), tmp_path, lambda _: None)
    assert list(found.violations) == [8]
    assert prove.replay(nemesis, 8).endswith("--only odd --seed 8")
    found.caught = await prove.catch(nemesis, 9, tmp_path)
    assert found.caught == {"none": None}
    monkeypatch.setattr(found_module, "NEMESES", (nemesis,))
    monkeypatch.setitem(BY_NAME, "odd", nemesis)
    kept = Kept()
    kept.add(found, 8, "today")
    text = report.page(kept)
    assert "| odd | 100 trials | 1 | 1 | — | none: **not found** |" in text
    assert "*odd*, seed 8: AssertionError: it is lost" in text


def test_runs_on_one_source_add_up_and_those_on_another_count_for_nothing(tmp_path, monkeypatch):
    """Seen to fail where a run begins anew, and where it does not when the source has changed."""
    races, retention = BY_NAME["races"], BY_NAME["retention"]
    path = tmp_path / "proof.jsonl"
    Kept(path).add(Found(races, 600, 2, 9.0, {7: "it is lost"}, {"one": 1}), 7, "2026-11-29")
    Kept(path).add(Found(races, 400, 2, 6.0, {}, {"one": 3}), 8, "2026-11-30")
    Kept(path).add(Found(races, 400, 2, 6.0, {}, {"one": 3}), 8, "2026-11-30")  # once for a seed
    Kept(path).add(Found(retention, 24, 1, 3.0), 8, "2026-12-01")
    kept = Kept(path)
    together = Found(races, 1000, 4, 15.0, {7: "it is lost"}, {"one": 3})
    assert kept.all() == [together, Found(retention, 24, 1, 3.0)]
    assert (kept.days(), kept.reached(BY_NAME["hand-over"])) == ("2026-11-29 to 2026-12-01", 1024)
    monkeypatch.setattr(lines, "source", lambda: "another")
    assert Kept(path).all() == []


def test_two_soaks_make_no_longer_one(tmp_path):
    path, soaked = tmp_path / "proof.jsonl", BY_NAME["soak-sqlite"]
    long = Found(soaked, 3600, 1, 3600.0, measured={"sqlite": {"seconds": 3600}})
    Kept(path).add(long, 1, "2026-11-30")
    Kept(path).add(Found(soaked, 8, 1, 8.0, measured={"sqlite": {"seconds": 8}}), 2, "2026-11-30")
    (found,) = Kept(path).all()
    assert (found.n, found.measured) == (3600, long.measured)


@pytest.mark.parametrize(
    ("lines", "stored", "fault"),
    [
        ("asks s|waits s|asks s m1|heard s m1", Stored("used", ("m1",)), ""),
        ("asks s|waits s|asks s m1", Stored("used", ("m1",)), ""),
        ("asks s|waits s|asks s m1", Stored("waiting"), ""),
        ("asks s", None, ""),
        ("asks s|waits s|asks s m1|heard s m1", None, "acknowledged message, and is None"),
        ("asks s|waits s|asks s m1|heard s m1", Stored("expired", ("m1",)), "and is expired"),
        ("asks s|waits s|asks s m1|heard s m1", Stored("used", ("m1", "m1")), "stored 2 times"),
        ("asks s|waits s|asks s n1|heard s n1", Stored("waiting"), "were acknowledged"),
        ("asks s|waits s|asks s m1|failed s m1", Stored("used", ("m1",)), "was refused"),
        ("asks s|waits s", None, "it was created, and is gone"),
        ("asks s|failed s", Stored("waiting"), "creation was refused"),
        ("asks s|waits s 5", Stored("waiting", (), 6), "its deadline was 5, and is 6"),
        ("asks s|waits s|expired s 0.1|expired s 0.2", Stored("expired"), "it expired 2 times"),
        ("asks s|waits s|expired s -0.5", Stored("expired"), "0.5 s early"),
        (
            "asks s|waits s|asks s n1|asks s n2|heard s n1|heard s n2",
            Stored("waiting", ("n2", "n1")),
            "were acknowledged",
        ),
        ("asks s|waits s|asks s m1|heard s m1|shown s m1", Stored("used", ("m1",)), ""),
        ("asks s|waits s|asks s m1|heard s m1|shown s", Stored("used", ("m1",)), "[] are shown"),
        ("asks s|waits s|asks s m1|failed s m1|shown s m1", Stored("waiting"), "m1 is shown"),
        ("asks s|waits s|asks s m1|heard s m1|hidden s", Stored("used", ("m1",)), "is hidden"),
        ("asks s|waits s|hidden s", Stored("expired"), ""),
        ("asks s|missing s", Stored("waiting"), ""),
        ("asks s|waits s|missing s", Stored("waiting"), "told to be unknown"),
        ("asks s|waits s|asks s m1|heard s m1|gone s 1", Stored("used", ("m1",)), "be expired"),
        ("asks s|waits s 5|gone s -0.1", Stored("expired"), "0.1 s early"),
        ("asks s|waits s 5|lives s -0.1", Stored("waiting", (), 5), ""),
        ("asks s|waits s 5|lives s 0.1", Stored("waiting", (), 5), "after its deadline"),
        ("asks s|waits s 5|moves s", Stored("waiting", (), 6), ""),
        ("asks s|waits s 5|moves s|waits s 6", Stored("waiting", (), 5), "its deadline was 6"),
        ("asks s|waits s|gone s 1|moves s|waits s 9", Stored("waiting", (), 9, 1), ""),
        (
            "asks s|waits s|gone s 1|moves s|waits s 9",
            Stored("waiting", (), 9),
            "0 times, and 1 were seen",
        ),
        ("asks s|waits s|moves s", Stored("waiting", (), 9, 2), "resurrected 2 times"),
        ("asks s|waits s|moves s|runs s", Stored("waiting", (), 9, 3), ""),
        ("asks s|waits s|moves s|runs s", Stored("waiting", (), 9, 9), "resurrected 9 times"),
        ("asks s|waits s|asks s m1|heard s m1|deletes s", None, ""),
        ("asks s|waits s|asks s m1|heard s m1|deletes s", Stored("used", ("m1",)), ""),
        ("asks s|waits s|asks s m1|heard s m1|deletes s", Stored("used"), "were acknowledged"),
        ("asks s|waits s|asks s m1|heard s m1|deletes s|deleted s", None, ""),
        ("asks s|waits s|deletes s|deleted s", Stored("waiting"), "it was deleted, and is waiting"),
        ("asks s|waits s|deletes s|kept s", None, "it was created, and is gone"),
    ],
)
def test_the_checker_tells_what_a_history_forbids(lines, stored, fault):
    """Seen to fail without `hidden` and `lives`, and with deletions that are never looked at."""
    told = History.of([line.split() for line in lines.split("|")])
    found = told.faults({"s": stored} if stored else {})
    assert bool(found) is bool(fault)
    assert fault in "\n".join(found)


def test_a_slope_is_told_with_its_uncertainty_and_not_of_a_few_points():
    """The reference is a line through (0, 1), (1, 2), (2, 2), (3, 3), worked out by hand."""
    points = [(0, 1), (1, 2), (2, 2), (3, 3)]
    assert soak.slope(points) == pytest.approx((0.6, 4.303 * (0.1 / 5) ** 0.5))
    assert soak.slope(points[:3]) is None


def test_the_page_has_a_row_for_each_nemesis_and_is_quoted_as_it_is():
    """Seen to fail with another number of steps in README.md."""
    text = (ROOT / "bench" / "proof.md").read_text("utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| [\d,]+ \w+ \| ([\d,]+) \| (\d+) \|", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(BY_NAME)
    ran = {name: n for name, n, _ in rows}
    wrong = sum(int(violations) for *_, violations in rows)
    for page in ("README.md", "docs/operations.md"):
        told = " ".join((ROOT / page).read_text("utf-8").split())
        (quoted,) = report.QUOTED.findall(told)
        races = int(ran["races"].replace(",", "")) + int(ran["retention"].replace(",", ""))
        assert quoted == (
            f"{ran['simulation']} simulated steps, {races:,} races and {ran['kill']} kills found "
            f"{wrong} violations"
        ), page
