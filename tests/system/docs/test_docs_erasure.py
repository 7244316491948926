"""The commands of `docs/erasure.md`, run as printed, and what it says of tables."""

import re
from pathlib import Path

import pytest

import canary
from lapse.erasure.erasing import Receipt
from page_commands import run_commands
from parts import store_with_parts
from serving import AGENTS, serving
from users_data import fill

PAGE = (Path(__file__).parents[3] / "docs" / "erasure.md").read_text("utf-8")


def script(title):
    (found,) = re.findall(rf"```sh\n# {title}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.mark.long
async def test_the_commands_count_and_erase(tmp_path):
    store = store_with_parts(f"sqlite:///{tmp_path}/lapse.db")
    await fill(store, "ann", "canary")
    await store.close()
    counted = run_commands(script("count"), tmp_path)
    assert (counted.returncode, "sessions: 12" in counted.stdout) == (0, True), counted.stderr
    erased = run_commands(script("erase"), tmp_path)
    assert erased.returncode == 3, erased.stderr  # memory: it is not known where it is kept
    assert canary.found(f"sqlite:///{tmp_path}/lapse.db", "canary") == []


@pytest.mark.long
@pytest.mark.at_root
def test_the_route_erases(tmp_path):
    settings = {
        "LAPSE_AUTH": "header",
        "LAPSE_AUTH_HEADER": "X-User",
        "LAPSE_AUTH_PROXIES": "127.0.0.1",
        "LAPSE_SELF_ERASURE": "true",
    }
    with serving(tmp_path, str(AGENTS), **settings) as server:
        done = run_commands(
            script("over HTTP").replace("http://127.0.0.1:8000", server.url), tmp_path
        )
    assert done.returncode == 0, done.stderr
    assert '"isWhole":true' in done.stdout


def test_the_page_names_the_fields_of_the_receipt():
    receipt = Receipt({}, 0, is_whole=True, remains=(), digest="", key="")
    (row,) = re.findall(r"^\| `POST .* receipt: (.*)\. \|$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) == set(receipt.document())
