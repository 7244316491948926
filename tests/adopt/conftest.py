"""Databases as stock ADK leaves them: filled once, and copied for each test."""

import shutil
import sys
from pathlib import Path

import pytest
from google.adk.sessions.database_session_service import DatabaseSessionService

sys.path.append(str(Path(__file__).parents[1] / "http"))

from stock_databases import fill, place_of

import postgres

_filled: dict[str, Path] = {}


@pytest.fixture(params=["sqlite", "postgres", "adk-web"])
async def stocked(request, tmp_path, tmp_path_factory):
    """The URL of a database that stock ADK has filled."""
    if request.param == "postgres":
        if "postgres" not in _filled:
            postgres.run(postgres.server().format("postgres"), "CREATE DATABASE stocked")
            url = postgres.server().format("stocked").replace("://", "+asyncpg://", 1)
            async with DatabaseSessionService(url) as service:
                await fill(service)
            _filled["postgres"] = Path("stocked")
        with postgres.blank("stocked") as url:
            yield url
        return
    if request.param not in _filled:
        folder = tmp_path_factory.mktemp(request.param)
        with place_of(request.param, folder) as (url, opened):
            service = opened()
            await fill(service)
            await service.close()
        _filled[request.param] = Path(url.removeprefix("sqlite:///"))
    file = tmp_path / _filled[request.param].name
    shutil.copy(_filled[request.param], file)
    yield f"sqlite:///{file}"
