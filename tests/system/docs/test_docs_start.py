"""Each page of `docs/start`, as its reader follows it: files, a server, commands, what they print.

What a line prints stands behind `# →` at its end. Only the installation is not run here: the test
of the release runs it.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from google.adk.sessions.database_session_service import DatabaseSessionService

from page_commands import printed_by, readers_environment
from stock_databases import fill

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "docs" / "start").glob("*.md"))
STEP = re.compile(r"<!-- (file|serve|run|install)(?:: (\S+))? -->\n```\w+\n(.*?)```", re.DOTALL)


def with_port(text: str, port: int) -> str:
    return text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")


@contextmanager
def serving(command: str, folder: Path, port: int) -> Iterator[None]:
    """Run a page's server on another port, from when it listens until the page ends."""
    log = folder / "server.log"
    with log.open("w") as lines:
        server = subprocess.Popen(
            ["bash", "-c", f"{command.rstrip()} --port {port}"],
            cwd=folder,
            env=readers_environment(),
            stdout=lines,
            stderr=lines,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 90
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


async def written_by_stock_adk(file: Path) -> None:
    service = DatabaseSessionService(f"sqlite+aiosqlite:///{file}")
    await fill(service)
    await service.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_reader_who_follows_the_page_gets_what_it_says(page, tmp_path):
    """Seen to fail with a TTL of 30 minutes, without services.yaml, and with another answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if page.stem == "existing_database":
        asyncio.run(written_by_stock_adk(tmp_path / "chats.db"))
    text = page.read_text("utf-8")
    steps = STEP.findall(text)
    assert len(steps) == text.count("\n```") / 2, "a block without a mark"
    with ExitStack() as running:
        for kind, name, body in steps:
            match kind:
                case "file":
                    file = tmp_path / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(body, "utf-8")
                case "serve":
                    running.enter_context(serving(body, tmp_path, port))
                case "run":
                    shown = printed_by(with_port(body, port), tmp_path)
                    for told in re.findall(r"# → (.*)$", body, re.MULTILINE):
                        before, found, shown = shown.partition(told)
                        assert found, (told, before)


def test_each_page_begins_with_an_environment_of_its_own():
    for page in PAGES:
        assert "python3 -m venv .venv && . .venv/bin/activate" in page.read_text("utf-8"), page
