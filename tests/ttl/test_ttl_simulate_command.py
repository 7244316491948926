"""`lapse simulate`, run as an operator runs it, with wrong inputs too."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from serving import environment, lapse

pytestmark = pytest.mark.long

HEAD = "created_at,first_message_delay_seconds,user_id,segment\n"
ROWS = [
    ("2030-01-01T00:00:00Z", 60.0, "a", "x"),
    ("2030-01-01 00:10:00", 3600.0, "b", None),
    ("2030-01-01T02:20:00+02:00", None, "c", None),
    ("1893456000", 100000.0, "d", None),
]


def write_csv(path, rows=ROWS, head=HEAD):
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def check(document):
    policies = document["policies"]
    assert document["sessions"] == 4
    assert {"adaptive", "fixed", "oracle"} <= policies.keys()
    fixed = policies["fixed"]
    assert fixed["softMissRate"] == 0.5
    assert fixed["hardMissRate"] == pytest.approx(1 / 3)
    assert fixed["emptySessionHours"] == pytest.approx((60 + 3 * 1800) / 3600)


def test_a_trace_in_csv_or_parquet_gives_the_same_as_one_in_json(tmp_path):
    write_csv(tmp_path / "trace.csv")
    names = HEAD.strip().split(",")
    columns = dict(zip(names, map(list, zip(*ROWS, strict=True)), strict=True))
    parquet.write_table(pa.table(columns), tmp_path / "trace.parquet")
    shown = [lapse(tmp_path, "simulate", name, "--json") for name in ("trace.csv", "trace.parquet")]
    for done in shown:
        assert done.returncode == 0, done.stderr
        check(json.loads(done.stdout))
    assert shown[0].stdout == shown[1].stdout


def test_the_simulation_of_a_generated_history_is_a_table_and_a_chart(tmp_path):
    arguments = ("--generator", "mixture", "--days", "4", "--per-day", "200", "--png", "it.png")
    done = lapse(tmp_path, "simulate", *arguments, "--fixed", "10")
    assert done.returncode == 0, done.stderr
    for told in ("adaptive", "fixed 10 min", "oracle", "800 sessions", "control group"):
        assert told in done.stdout
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_targets_may_be_shares_or_per_cent(tmp_path):
    write_csv(tmp_path / "t.csv")
    arguments = ("simulate", "t.csv", "--json", "--soft-target", "60%", "--hard-target", "0.01")
    targets = json.loads(lapse(tmp_path, *arguments).stdout)["targets"]
    assert (targets["soft"], targets["hard"]) == (0.6, 0.01)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give a history"),
        (("t.csv", "-g", "mixture"), "give a history"),
        (("-g", "mixtures"), "there are mixture, "),
        (("none.csv",), "there is no file none.csv"),
        (("t.csv", "--soft-target", "5"), "--soft-target: must be above 0 and below 1"),
        (("t.csv", "--fixed", "0"), "--fixed: must be above 0"),
        (("t.csv", "--png", "no/such/folder.png"), "--png: cannot write"),
        (("--from-store", "sqlite:///empty.db"), "/empty.db: this store is empty"),
        (("--from-store", "mysql://x"), "store URL: must be"),
    ],
)
def test_an_impossible_simulation_is_refused_in_one_sentence(tmp_path, arguments, told):
    write_csv(tmp_path / "t.csv")
    done = lapse(tmp_path, "simulate", *arguments)
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("head", "row", "told"),
    [
        ("created,first_message_delay_seconds\n", (1, 2), "has no column created_at"),
        (HEAD, ("yesterday", 2), "row 1: created_at must be"),
        (HEAD, ("1e300", 2), "row 1: created_at must be"),
        (HEAD, ("2030-01-01", -2), "row 1: first_message_delay_seconds must be"),
        (HEAD, ("2030-01-01", "nan"), "row 1: first_message_delay_seconds must be"),
        (HEAD, ("2030-01-01", "inf"), "row 1: first_message_delay_seconds must be"),
        (HEAD, ("2030-01-01",), "row 1: first_message_delay_seconds must be"),
        ("", (), "must hold a session"),
    ],
)
def test_a_wrong_trace_is_refused_with_the_place_of_the_fault(tmp_path, head, row, told):
    from pathlib import Path

    from lapse.core.errors import InvalidValueError
    from lapse.ttl.simulation.traces import read_trace

    path = Path(tmp_path / "t.csv")
    write_csv(path, [row] if row else [], head)
    if row == ("2030-01-01",):
        # A line that ends early has no delay: never, as if it were empty.
        assert read_trace(path)[0].delay == float("inf")
        return
    with pytest.raises(InvalidValueError, match=told):
        read_trace(path)


def test_without_its_extra_the_simulation_says_what_to_install(tmp_path):
    program = (
        "import sys\n"
        "sys.modules['matplotlib'] = sys.modules['pyarrow'] = None\n"
        "from lapse.cli.main import main\n"
        "main()\n"
    )
    (tmp_path / "t.parquet").write_bytes(b"x")
    for extra, arguments in (
        ("parquet", ("t.parquet",)),
        ("plot", ("-g", "mixture", "--days", "1", "--png", "it.png")),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, "simulate", *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert f"pip install 'lapse[{extra}]'" in done.stderr
