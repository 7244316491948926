"""`lapse verify`, as an operator runs it: the table of promises through real servers."""

import subprocess
import sys

import pytest

from lapse.testing import client, play, scenarios
from lapse.testing.client import Broken, Client
from lapse.testing.scenarios import SCENARIOS, Stage
from lapse.testing.server import Server

pytestmark = pytest.mark.long


def verify(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lapse.cli", "verify", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """How late a sweep is on a machine that runs other tests says nothing."""
    monkeypatch.setattr(scenarios, "_LATE", client.PATIENCE)


@pytest.mark.timeout(300)
async def test_every_scenario_holds_on_a_throw_away_server(monkeypatch, capsys):
    # Its servers are busy enough without being measured; other tests cover what they run.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    # The same scenarios with fewer sessions than `lapse verify` takes.
    monkeypatch.setattr(scenarios, "_CROWD", 1000)
    monkeypatch.setattr(scenarios, "_RACES", 250)
    status = await play(None)

    table = capsys.readouterr().out
    assert status == 0, table
    assert table.count("✓") == len(SCENARIOS)


@pytest.mark.timeout(300)
async def test_every_scenario_holds_with_conversations_in_another_service(monkeypatch, capsys):
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    monkeypatch.setattr(scenarios, "_CROWD", 500)
    # SQLite has one writer, and ADK's service waits for it only so long: then the answer is 503.
    monkeypatch.setattr(scenarios, "_RACES", 20)
    monkeypatch.setattr(scenarios, "_PENDING", 2000)
    # Beside the store, in the folder in which each server runs.
    monkeypatch.setenv("LAPSE_CONVERSATIONS_URI", "sqlite+aiosqlite:///conversations.db")
    status = await play(None)

    table = capsys.readouterr().out
    assert status == 0, table
    assert table.count("✓") == len(SCENARIOS)


@pytest.mark.timeout(300)
async def test_a_running_server_with_conversations_in_memory_is_verified(monkeypatch, capsys):
    monkeypatch.setattr(scenarios, "_RACES", 50)
    async with Server(LAPSE_CONVERSATIONS_URI="memory://") as server:
        await server.start()
        status = await play(server.url)
    table = capsys.readouterr().out
    assert status == 0, table
    assert table.count("✓") == sum(not row.owns_server for row in SCENARIOS)


def test_a_missing_server_is_a_failure():
    done = verify("--url", "http://127.0.0.1:9")

    assert done.returncode == 1
    assert "does not answer" in done.stdout


@pytest.mark.timeout(300)
async def test_a_running_server_that_expires_nothing_gets_a_cross(monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 2 * client.TTL)
    async with Server(SESSION_CLEANUP_ENABLED="false") as server:
        await server.start()
        scenario = next(row for row in SCENARIOS if row.name == "page abandoned")
        with pytest.raises(Broken, match="waiting, not expired"):
            async with Client(server.url) as caller:
                await scenario.play(Stage(caller, server))
