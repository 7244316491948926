"""The helpers of other folders that these tests share."""

import sys
from pathlib import Path

import pytest

from postgres import OwnServer, blank, database, own_server

for folder in ("http", "store"):
    sys.path.append(str(Path(__file__).parents[1] / folder))


@pytest.fixture
def place():
    """The URL of a database with Lapse's tables, all empty."""
    with database() as url:
        yield url


@pytest.fixture
def nothing():
    """The URL of a database with nothing in it."""
    with blank() as url:
        yield url


@pytest.fixture
def own() -> OwnServer:
    """A server of one's own, to stop and to start."""
    with own_server() as server:
        yield server
