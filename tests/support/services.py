"""The services that keep ADK's contract: Lapse's, and ADK's own as references."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adk_versions import since_adk

_KEEPS_IT = since_adk("2.8", "ADK's own services keep an older contract")
ELSEWHERE = (
    pytest.param("elsewhere-memory", marks=_KEEPS_IT),
    pytest.param("elsewhere-database", marks=_KEEPS_IT),
    pytest.param("elsewhere-mariadb", marks=[pytest.mark.long, _KEEPS_IT]),
    pytest.param("elsewhere-vertex", marks=[pytest.mark.long, _KEEPS_IT]),
)
ADK_DATABASE = pytest.param("adk-database", marks=_KEEPS_IT)
ADK_MEMORY = pytest.param(
    "adk-memory", marks=since_adk("2.12", "ADK's service in memory keeps an older contract")
)
VERTEX_DIFFERS = {
    "test_an_unknown_users_state_is_empty": "the API tells no user's state",
    **dict.fromkeys(
        (
            "test_a_session_reads_back_equal_to_the_object_that_was_appended_to",
            "test_an_event_reads_back_with_all_its_parts",
            "test_the_first_message_moves_earlier_events_and_state_into_adks_tables",
            "test_the_same_event_is_returned_and_stored",
            "test_timestamps_read_back_exactly",
        ),
        "ADK's client sends an event's time in whole microseconds",
    ),
}
"""Tests of ADK's contract that ADK's own Vertex AI service does not pass, with the reason."""

LAPSE = ("lapse-file", "lapse-memory", "lapse-postgres")


@asynccontextmanager
async def _running(kind: str, folder: Path) -> AsyncIterator[Any]:
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from google.adk.sessions.in_memory_session_service import InMemorySessionService

    from lapse import LapseSessionService
    from lapse.adk.conversing import ConversingSessionService
    from parts import store_with_parts
    from postgres import database
    from sqlite_files import empty_store

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
        case "elsewhere-memory":
            store = store_with_parts("sqlite:///:memory:")
            async with ConversingSessionService(store, InMemorySessionService()) as service:
                yield service
        case "elsewhere-database":
            store = store_with_parts(empty_store(folder / "lobby.db"))
            other = DatabaseSessionService(f"sqlite+aiosqlite:///{folder}/adk.db")
            async with ConversingSessionService(store, other) as service:
                yield service
        case "elsewhere-vertex":
            from vertex_stand_in import vertex_service

            store = store_with_parts("sqlite:///:memory:")
            async with vertex_service() as other, ConversingSessionService(store, other) as service:
                yield service
        case "elsewhere-mariadb":
            import mariadb_server

            store = store_with_parts("sqlite:///:memory:")
            with mariadb_server.database() as url:
                other = DatabaseSessionService(url)
                async with ConversingSessionService(store, other) as service:
                    yield service
        case _:
            store = store_with_parts(empty_store(folder / "lapse.db"))
            async with LapseSessionService(store) as lapse:
                yield lapse


@pytest.fixture(params=[*LAPSE, *ELSEWHERE, ADK_DATABASE, ADK_MEMORY])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return any service: what holds here is ADK's contract."""
    reason = VERTEX_DIFFERS.get(request.node.originalname)
    if request.param == "elsewhere-vertex" and reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=False))
    async with _running(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=[*LAPSE, ADK_DATABASE, ADK_MEMORY])
async def sharing_service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return a service whose sessions share app and user state before their first message.

    With conversations in another service they share it only from then on.
    """
    async with _running(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=[*LAPSE, ADK_DATABASE])
async def database_service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return a service on a database: what holds here, ADK's in-memory service does not do."""
    async with _running(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=[*LAPSE, ADK_MEMORY])
async def stripping_service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return a service that strips ids: what holds here, ADK's DatabaseSessionService differs."""
    async with _running(request.param, tmp_path) as running:
        yield running


@pytest.fixture(params=LAPSE)
async def lapse(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Return Lapse's service: what holds here is more than ADK's references promise."""
    async with _running(request.param, tmp_path) as running:
        yield running
