"""Two replicas on one store, each a real server on a real socket."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from noticing import Replica

from backends import BACKENDS

sys.path.append(str(Path(__file__).parents[1] / "http"))


@pytest.fixture(params=[each for each in BACKENDS if each.shared], ids=lambda each: each.name)
def place(request, tmp_path):
    """The URL of an empty store that replicas can share, on each kind of store."""
    with request.param.empty(tmp_path) as url:
        yield url


@pytest.fixture
def alone(tmp_path):
    """The URL of an empty store for what does not depend on the kind of store."""
    return f"sqlite:///{tmp_path}/alone.db"


@pytest.fixture
def replica():
    """Starts replicas; all are stopped in the end."""
    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(Replica(url, **options))
