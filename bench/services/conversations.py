"""What the lobby costs in front of ADK's DatabaseSessionService: calls with it and without.

`python -m bench.services.conversations [ROUNDS]` prints a table, and the four goals with their
bounds. The services take turns within each round, and each figure is the median of the rounds'
medians; the ratios are between medians. The two create different things: a waiting session is one
row of the lobby, and `create` of the service is its own. `Lapse alone` is the store with ADK's
tables in one file. A write of the lobby is an `extend`, one transaction of one row.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from google.adk.events.event import Event
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.genai import types

from lapse import LapseSessionService
from lapse.adk.conversing import ConversingSessionService
from lapse.core.keys import SessionKey
from lapse.store import store_from_url
from lapse.store.sessions import Sessions

_CALLS: Final = 60
_LISTED: Final = 20
_EVENTS: Final = 10
_STEPS: Final = ("create", "first message", "get, used", "list of 20, used")
_WRITE: Final = "a write of the lobby"
_ADK, _LOBBY, _ALONE = "DatabaseSessionService", "with the lobby", "Lapse alone"


def _message(text: str, author: str = "user") -> Event:
    content = types.Content(role=author, parts=[types.Part(text=text)])
    return Event(author=author, invocation_id="i", content=content)


async def _timed(call: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1e6


async def _round(service: Any, number: int) -> dict[str, float]:
    """Return the median time of each step, in microseconds."""
    took: dict[str, list[float]] = defaultdict(list)
    user = f"user-{number}"
    named = {"app_name": "bench", "user_id": user}
    sessions = []

    async def create(**more: Any) -> None:
        sessions.append(await service.create_session(**(named | more)))

    for place in range(_CALLS):
        # The list has the sessions of one user; all others have users of their own.
        owner = user if place < _LISTED else f"{user}-{place}"
        took["create"].append(await _timed(lambda: create(user_id=owner)))  # noqa: B023
    if isinstance(service, ConversingSessionService):
        lobby = Sessions(service.store)
        for session in sessions:
            waiting = SessionKey(session.app_name, session.user_id, session.id)
            took[_WRITE].append(await _timed(lambda: lobby.extend(waiting)))  # noqa: B023
    for session in sessions:
        first = _message("hello")
        took["first message"].append(
            await _timed(lambda: service.append_event(session, first))  # noqa: B023
        )
    for _ in range(_EVENTS - 1):
        await service.append_event(sessions[0], _message("more", "bot"))
    for _ in range(_CALLS):
        used = named | {"session_id": sessions[0].id}
        took["get, used"].append(await _timed(lambda: service.get_session(**used)))  # noqa: B023
        took["list of 20, used"].append(await _timed(lambda: service.list_sessions(**named)))
    return {step: median(times) for step, times in took.items()}


async def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Return the figures of each service, by its name and step."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        other = DatabaseSessionService(f"sqlite+aiosqlite:///{place}/behind.db")
        services: dict[str, Any] = {
            _ADK: DatabaseSessionService(f"sqlite+aiosqlite:///{place}/adk.db"),
            _LOBBY: ConversingSessionService(store_from_url(f"sqlite:///{place}/lobby.db"), other),
            _ALONE: LapseSessionService(store_from_url(f"sqlite:///{place}/lapse.db")),
        }
        gc.freeze()
        for number in range(rounds + 1):
            for name, service in services.items():
                for step, took in (await _round(service, number)).items():
                    if number:  # the first round opens and creates
                        found[name][step].append(took)
        for service in services.values():
            await service.close()
    return {
        name: {step: median(took) for step, took in steps.items()} for name, steps in found.items()
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """Return the figures in microseconds, and how the lobby compares, as Markdown."""
    names = list(found)
    lines = [
        f"| µs, median | {' | '.join(names)} | with ÷ without |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for step in _STEPS:
        figures = [found[name][step] for name in names]
        cells = " | ".join(f"{one:,.0f}" for one in figures)
        lines.append(f"| {step} | {cells} | {figures[1] / figures[0]:.2f} |")
    return "\n".join(lines)


def goals(found: dict[str, dict[str, float]]) -> str:
    """Return the four goals with what they are measured by and their bounds, as Markdown."""
    adk, lobby, alone = found[_ADK], found[_LOBBY], found[_ALONE]
    added = lobby["first message"] - adk["create"] - adk["first message"]
    rows = [
        ("create: with the lobby ÷ Lapse alone", lobby["create"] / alone["create"], "about 1"),
        (
            "first message: what it adds to the service's own calls ÷ a write of the lobby",
            added / lobby[_WRITE],
            "at most 2",
        ),
        ("get of a used session ÷ the service's", lobby["get, used"] / adk["get, used"], "≤ 1.10"),
        (
            "list of 20 ÷ the service's",
            lobby["list of 20, used"] / adk["list of 20, used"],
            "≤ 1.20",
        ),
    ]
    lines = [f"| {what} | {figure:.2f} | {bound} |" for what, figure, bound in rows]
    return "\n".join(["| goal | measured | bound |", "|---|---|---|", *lines])


if __name__ == "__main__":
    given = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    figures = asyncio.run(measure(given))
    print(table(figures), goals(figures), sep="\n\n")
