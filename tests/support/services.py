"""The services that keep ADK's contract: Lapse's, and ADK's own as references."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

LAPSE = ("lapse-file", "lapse-memory", "lapse-postgres")


@asynccontextmanager
async def _running(kind: str, folder: Path) -> AsyncIterator[Any]:
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from google.adk.sessions.in_memory_session_service import InMemorySessionService

    from lapse import LapseSessionService
    from parts import store_with_parts
    from postgres import database

    match kind:
        case "adk-memory":
            yield InMemorySessionService()
        case "adk-database":
            async with DatabaseSessionService(f"sqlite+aiosqlite:///{folder}/adk.db") as service:
                yield service
        case "lapse-memory":
            async with LapseSessionService(store_with_parts("sqlite:///:memory:")) as service:
                yield service
        case "lapse-postgres":
            with database() as url:
                async with LapseSessionService(store_with_parts(url)) as service:
                    yield service
        case _:
            async with LapseSessionService(
                store_with_parts(f"sqlite:///{folder}/lapse.db")
            ) as lapse:
                yield lapse


@pytest.fixture(params=[*LAPSE, "adk-database", "adk-memory"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return any service: what holds here is ADK's contract."""
    async with _running(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=[*LAPSE, "adk-database"])
async def database_service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return a service on a database: what holds here, ADK's in-memory service does not do."""
    async with _running(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=[*LAPSE, "adk-memory"])
async def stripping_service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return a service that strips ids: what holds here, ADK's DatabaseSessionService differs."""
    async with _running(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=LAPSE)
async def lapse(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return Lapse's service: what holds here is more than ADK's references promise."""
    async with _running(request.param, tmp_path) as running:
        yield running
