"""Databases of version 0, of both kinds."""

import pytest

from calling import Caller
from v0_databases import KINDS, v0_database


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def old(kind, tmp_path):
    """The URL of a database as ADK 1.20 has left it."""
    with v0_database(kind, tmp_path / "old") as url:
        yield url


@pytest.fixture
def lapse(old, monkeypatch, capsys, tmp_path):
    """The command line on the old database."""
    monkeypatch.chdir(tmp_path)
    return Caller(monkeypatch, capsys, old)
