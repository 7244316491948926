"""The pytest plug-in: what tests of programs with Lapse ask for as fixtures.

pytest loads it wherever Lapse is installed, so it imports next to nothing before a test needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lapse.testing.clock import Clock
    from lapse.testing.clocked import ClockedLapse
    from lapse.testing.server import Server


@pytest.fixture
def lapse() -> Iterator[ClockedLapse]:
    """Sessions in memory, with a clock that the test moves: a `ClockedLapse`."""
    import asyncio

    from lapse.testing.clocked import ClockedLapse

    made = ClockedLapse()
    yield made
    asyncio.run(made.close())


@pytest.fixture
def clock(lapse: ClockedLapse) -> Clock:
    """The clock of the fixture `lapse`."""
    return lapse.clock


@pytest.fixture
def lapse_server() -> Iterator[Callable[..., Server]]:
    """Starts a `Server` on a free port, with the arguments that it is called with."""
    from lapse.testing.server import Server

    with ExitStack() as stack:

        def start(agents: Path | None = None, **settings: str) -> Server:
            return stack.enter_context(Server(agents, **settings))

        yield start
