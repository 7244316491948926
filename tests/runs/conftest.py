"""Servers of the agent `walker`: two replicas on each store, and one with low limits."""

from contextlib import ExitStack

import pytest

from postgres import database
from run_reading import AGENTS
from serving import serving


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def start_replica(request, tmp_path_factory):
    """A function that starts one more server on the same store."""
    folder = tmp_path_factory.mktemp(f"runs-{request.param}")
    with ExitStack() as stack:
        settings = {"LAPSE_RUNS_PER_USER": "1000"}  # all tests are of one user
        if request.param == "postgres":
            settings["LAPSE_STORE_URL"] = stack.enter_context(database())

        def start(**more):
            return stack.enter_context(serving(folder, str(AGENTS), **settings, **more))

        yield start


@pytest.fixture(scope="session")
def servers(start_replica):
    """Two servers on one store."""
    return start_replica(), start_replica()


@pytest.fixture(scope="session")
def strict_server(tmp_path_factory):
    """A server with low limits for the number and the length of runs."""
    limits = {
        "LAPSE_RUN_SECONDS": "2",
        "LAPSE_RUNS_PER_PROCESS": "3",
        "LAPSE_RUNS_PER_USER": "2",
        "LAPSE_RUN_QUEUE": "1",
        "LAPSE_RUN_GRACE_SECONDS": "0.2",
    }
    with serving(tmp_path_factory.mktemp("strict"), str(AGENTS), **limits) as server:
        yield server
