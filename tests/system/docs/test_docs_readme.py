"""The README's commands and its program, run as printed."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from lapse.settings import setting_names
from lapse.verify.server import Server

README = (Path(__file__).parents[3] / "README.md").read_text("utf-8")


def blocks(mark: str) -> list[str]:
    return re.findall(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, re.DOTALL)


def run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


async def test_the_walk_through_shows_what_it_says():
    walk = "\n".join(blocks("walk"))
    assert "http://127.0.0.1:8000" in walk
    async with Server(SESSION_CLEANUP_TTL_MINUTES="0.05") as server:
        await server.start()
        script = walk.replace("http://127.0.0.1:8000", server.url)
        done = await asyncio.to_thread(run, ["bash", "-euc", script])
    shown = done.stdout

    assert '"state":{"theme":"dark"}' in shown
    assert '{"detail":"Session not found"}404' in shown
    assert '"status":"expired"' in shown
    assert "reservation 1 for 4 guests" in shown
    assert shown.rstrip().endswith("}")
    assert json.loads(shown[shown.rindex('{"appName"') :])["status"] == "used"


def test_the_program_runs_as_printed(tmp_path: Path):
    (program,) = blocks("program")
    (tmp_path / "shop.py").write_text(program)
    check = """
        from fastapi.testclient import TestClient
        from shop import app
        with TestClient(app) as client:
            print(client.get("/readyz").json()["status"])
    """
    shown = run([sys.executable, "-c", dedent(check)], cwd=tmp_path)

    assert shown.stdout.strip() == "ready", shown.stderr
    assert (tmp_path / "chats.db").exists()


@pytest.mark.parametrize("name", setting_names())
def test_every_setting_is_described(name: str):
    assert f"| `{name}` |" in README
