"""Databases on PostgreSQL, and a database server that tests stop and start."""

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
    """A database server that the test may stop and start."""
    with own_server() as server:
        yield server
