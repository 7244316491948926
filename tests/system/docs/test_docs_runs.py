"""The walk-through of docs/runs.md, run as printed."""

import asyncio
import re
import subprocess
from pathlib import Path

from lapse.testing.server import Server

PAGE = (Path(__file__).parents[3] / "docs" / "runs.md").read_text("utf-8")


async def test_the_walk_through_of_runs_prints_what_it_shows(tmp_path: Path):
    walk = "\n".join(re.findall(r"<!-- walk -->\n```sh\n(.*?)```", PAGE, re.DOTALL))
    async with Server() as server:
        await server.start()
        script = walk.replace("http://127.0.0.1:8000", server.url)
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-euc", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert '"success":true' in done.stdout
    assert "\n204\n" in done.stdout
    assert done.stdout.count("event: done") == 2
    assert "You said: What else?" in done.stdout
    everything, rest = (
        [
            block
            for block in (tmp_path / name).read_text().split("\n\n")
            if block.startswith(("id: ", "event: ")) and '"partial":true' not in block
        ]
        for name in ("all", "rest")
    )
    assert len(rest) >= 2
    assert rest == everything[-len(rest) :]
