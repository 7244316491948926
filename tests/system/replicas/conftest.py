"""Databases of these tests' own, and a server to stop and to start."""

import pytest

from postgres import OwnServer, blank, database, own_server


@pytest.fixture
def store_url():
    """The URL of a database with Lapse's tables, all empty."""
    with database() as url:
        yield url


@pytest.fixture
def empty_database_url():
    """The URL of a database with nothing in it."""
    with blank() as url:
        yield url


@pytest.fixture
def own_database_server() -> OwnServer:
    """A server of one's own, to stop and to start."""
    with own_server() as server:
        yield server
