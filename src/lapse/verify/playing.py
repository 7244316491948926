"""Plays the scenarios, prints a row for each, and tells whether all of them hold."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import httpx
from rich.console import Console
from rich.table import Table

from lapse.verify.client import DEMO_APP, Broken, Client
from lapse.verify.scenarios import SCENARIOS, Scenario, Stage
from lapse.verify.server import Server


async def play(url: str | None) -> int:
    """Play against the server at `url`, or a throw-away one, and return the exit status.

    Against a server that is not ours, what would need to stop it, or another store, is left
    out; so is what needs the demo agent, where it is not served: other agents cost money.
    """
    console = Console()
    async with AsyncExitStack() as stack:
        server = None
        if url is None:
            server = await stack.enter_async_context(Server())
            with console.status("starting a throw-away server"):
                await server.start()
        client = await stack.enter_async_context(Client(url or (server.url if server else "")))
        try:
            has_demo = await client.serves(DEMO_APP)
        except httpx.HTTPError as error:
            console.print(f"lapse: {url} does not answer: {error}", style="red")
            return 1
        table = Table("", "scenario", "outcome", "s", box=None, pad_edge=False)
        broken = 0
        for scenario in SCENARIOS:
            reason = _left_out(scenario, is_ours=server is not None, has_demo=has_demo)
            if reason:
                table.add_row("-", scenario.name, f"[dim]{reason}[/]", "")
                continue
            with console.status(scenario.name):
                began = time.monotonic()
                fault = await _fault(scenario, Stage(client, server))
                took = f"{time.monotonic() - began:.1f}"
            broken += fault is not None
            mark = "[green]✓[/]" if fault is None else "[red]✗[/]"
            table.add_row(mark, scenario.name, fault or scenario.outcome, took)
        console.print(table)
    return 1 if broken else 0


def _left_out(scenario: Scenario, *, is_ours: bool, has_demo: bool) -> str | None:
    if scenario.owns_server and not is_ours:
        return "left out: needs a server of its own"
    if scenario.needs_demo and not has_demo:
        return f"left out: the server does not serve the demo agent {DEMO_APP!r}"
    return None


async def _fault(scenario: Scenario, stage: Stage) -> str | None:
    try:
        await scenario.play(stage)
    except (Broken, httpx.HTTPError, OSError, RuntimeError) as error:
        return f"[red]{str(error) or type(error).__name__}[/]"
    return None
