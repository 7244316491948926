"""Databases as stock ADK leaves them."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "http"))

from stock_databases import fill, place_of


@pytest.fixture(params=["sqlite", "postgres", "adk-web"])
async def stocked(request, tmp_path):
    """The URL of a database that stock ADK has filled."""
    with place_of(request.param, tmp_path) as (url, opened):
        service = opened()
        await fill(service)
        await service.close()
        yield url
