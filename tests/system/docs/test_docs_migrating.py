"""docs/migrating.md: from stock ADK and back out again, run as printed."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from google.adk.events.event import Event
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.genai.types import Content, Part

from page_commands import run_commands
from v0_databases import content, v0_database

pytestmark = pytest.mark.long

PAGE = (Path(__file__).parents[3] / "docs" / "migrating.md").read_text("utf-8")
OWNER = {"app_name": "shop", "user_id": "ada"}


def script(step: str) -> str:
    (block,) = re.findall(rf"<!-- migrating: {step} -->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    return block


def run(folder: Path, step: str, **variables: str) -> str:
    done = run_commands(script(step), folder, **variables, COLUMNS="120")
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(file: Path) -> list[str]:
    """Return ADK's rows as SQL text: every byte of them."""
    with closing(sqlite3.connect(file)) as connection:
        return sorted(
            line
            for line in connection.iterdump()
            if line.startswith("INSERT") and "lapse_" not in line
        )


async def test_the_page_on_migrating_leads_from_stock_adk_to_lapse_and_back(tmp_path: Path):
    file = tmp_path / "chats.db"
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{file}") as stock:
        for number in range(20):
            session = await stock.create_session(**OWNER, state={"n": 1} if number == 7 else None)
        await stock.append_event(
            session, Event(author="user", content=Content(role="user", parts=[Part(text="hi")]))
        )
    bytes_before, before = file.read_bytes(), rows(file)

    assert "18 of 20 sessions are empty (90%)" in run(tmp_path, "look")
    assert "sessions: 20 rows" in run(tmp_path, "copy")
    assert file.read_bytes() == bytes_before, "looking and copying change nothing"
    # A state's time of change, which ADK writes and never reads, gets its six digits.
    kept = [line for line in before if "_states" not in line]
    assert [line for line in rows(tmp_path / "copy.db") if line in kept] == kept

    told = run(tmp_path, "adopt")
    assert "adopted 18 of 20 sessions" in told
    (run_id,) = re.findall(r"^run (\S+)$", told, re.MULTILINE)
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{file}") as stock:
        assert len((await stock.list_sessions(**OWNER)).sessions) == 2

    undone = run(tmp_path, "undo", RUN=run_id)
    assert f"{run_id}: 18 adopted, 18 still in the lobby" in undone
    assert "put back 18 sessions" in undone
    assert rows(file) == before
    async with DatabaseSessionService(f"sqlite+aiosqlite:///{file}") as stock:
        assert len((await stock.list_sessions(**OWNER)).sessions) == 20


def test_the_page_leads_from_version_0_and_back(tmp_path: Path):
    with v0_database("sqlite", tmp_path) as url:
        before = content(url)
        told = run(tmp_path, "version 0")
        assert "42 of events" in told
        assert "events: 42 rows" in told
        assert "the tables of version 0 are back" in run(tmp_path, "version 0, back")
        assert content(url) == before
