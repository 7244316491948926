"""Two replicas on one store, each a real server on a real socket."""

from contextlib import ExitStack

import pytest

import chromium
from backends import BACKENDS, PLAIN
from noticing import Replica

browser = chromium.browser


@pytest.fixture(
    params=[*(each for each in BACKENDS if each.shared), PLAIN], ids=lambda each: each.name
)
def shared_store_url(request, tmp_path):
    """The URL of an empty store that replicas can share, on each kind of store."""
    with request.param.empty(tmp_path) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path):
    """The URL of an empty SQLite store, for tests that do not depend on the kind of store."""
    return f"sqlite:///{tmp_path}/alone.db"


@pytest.fixture
def start_replica():
    """A function that starts a replica; all are stopped after the test."""
    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(Replica(url, **options))
