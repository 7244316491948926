"""The README's commands and its program, run as printed."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from lapse.testing.server import Server

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(mark: str) -> list[str]:
    return re.findall(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, re.DOTALL)


def run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


async def test_the_walk_through_of_the_readme_prints_what_it_shows():
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


def test_the_program_in_the_readme_runs_as_printed(tmp_path: Path):
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


async def test_the_context_manager_in_the_readme_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (program,) = blocks("context")
    (tmp_path / "context.py").write_text(f"{program}\nimport asyncio\nasyncio.run(main())\n")
    shown = await asyncio.to_thread(run, [sys.executable, "context.py"], tmp_path)

    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "chats.db").exists()


def test_the_readme_is_short_and_says_first_what_lapse_is():
    title, _, first = README.splitlines()[:3]
    assert title == "# Lapse"
    assert first.startswith("Lapse is a drop-in ADK session service that expires unused sessions")
    assert len(README.splitlines()) <= 160


def test_the_readme_shows_at_most_ten_settings_in_the_words_of_the_settings_page():
    """Seen to fail with another default in the README."""
    row = re.compile(r"^\| `(?:LAPSE|SESSION)_.*\|$", re.MULTILINE)
    shown = row.findall(README)
    assert 0 < len(shown) <= 10
    assert set(shown) <= set(row.findall((ROOT / "docs" / "settings.md").read_text("utf-8")))


def test_the_readme_links_to_every_page_of_the_docs():
    links = set(re.findall(r"\]\((docs/(?:start/)?\w+\.md)", README))
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "start").glob("*.md")]
    assert links == {str(page.relative_to(ROOT)) for page in pages}
