"""`lapse verify`, as an operator runs it: the table of promises through real servers."""

import subprocess
import sys

import pytest

from lapse.verify import client, play, scenarios
from lapse.verify.client import Broken, Client
from lapse.verify.scenarios import SCENARIOS, Stage
from lapse.verify.server import Server

pytestmark = pytest.mark.long


def verify(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lapse.cli", "verify", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


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
