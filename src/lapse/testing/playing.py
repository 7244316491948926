"""Plays the scenarios, and prints a table with the result of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from typing import Final

import httpx
from rich.console import Console
from rich.table import Table

from lapse.testing.client import DEMO_APP, Broken, Client
from lapse.testing.scenarios import SCENARIOS, Scenario, Stage
from lapse.testing.server import Server

_TICK: Final = "[green]✓[/]"
_CROSS: Final = "[red]✗[/]"

_Row = tuple[str, str, str, str]
"""A row of the table: the mark, the scenario, the outcome, the seconds it took."""


_Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def _no_bar(_title: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


async def play(url: str | None, *, bar: _Bar = _no_bar) -> int:
    """Play the scenarios against the server at `url`, and return the exit status.

    The status is 0 if every played scenario holds, else 1. With `url` None, a throw-away server is
    started. Scenarios that need a server of their own are left out with a `url`. Scenarios that
    need the demo agent are left out on a server without it, because other agents cost money.
    `bar` shows how many of them have been played: a context manager of a title and a total.
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
        stage = Stage(client, server)
        with bar("playing", len(SCENARIOS)) as advance:
            results = await _results(stage, advance, has_demo=has_demo)
    table = Table("", "scenario", "outcome", "s", box=None, pad_edge=False)
    for scenario in SCENARIOS:
        table.add_row(*results[scenario.name])
    console.print(table)
    return 1 if any(row[0] == _CROSS for row in results.values()) else 0


async def _results(
    stage: Stage, advance: Callable[[int], None], *, has_demo: bool
) -> Mapping[str, _Row]:
    """Play the scenarios that mostly wait all at once, then those under load one by one."""
    results: dict[str, _Row] = {}

    async def play_one(scenario: Scenario) -> None:
        results[scenario.name] = await _row(scenario, stage, has_demo=has_demo)
        advance(len(results))

    await asyncio.gather(*(play_one(row) for row in SCENARIOS if not row.is_load))
    for scenario in SCENARIOS:
        if scenario.is_load:
            await play_one(scenario)
    return results


async def _row(scenario: Scenario, stage: Stage, *, has_demo: bool) -> _Row:
    reason = _left_out(scenario, is_ours=stage.server is not None, has_demo=has_demo)
    if reason:
        return "-", scenario.name, f"[dim]{reason}[/]", ""
    began = time.monotonic()
    fault = await _fault(scenario, stage)
    took = f"{time.monotonic() - began:.1f}"
    return _TICK if fault is None else _CROSS, scenario.name, fault or scenario.outcome, took


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
