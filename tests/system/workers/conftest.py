"""`lapse serve --workers 2` on each store, which all tests of a module share."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from postgres import database
from run_reading import AGENTS
from serving import serving
from worker_clients import Clients

NEVER = "3600"
"""Seconds of a heartbeat that no test waits for: what arrives was announced."""


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request, tmp_path_factory):
    """A server with two workers that all tests of a module share."""
    with ExitStack() as stack:
        settings = {
            "LAPSE_ACCESS_LOG": "true",
            "LAPSE_HEARTBEAT_SECONDS": NEVER,
            "LAPSE_RUNS_PER_USER": "1000",
        }
        if request.param == "postgres":
            settings["LAPSE_STORE_URL"] = stack.enter_context(database())
        folder = tmp_path_factory.mktemp(f"workers-{request.param}")
        yield stack.enter_context(
            serving(folder, str(AGENTS), "--workers", "2", fresh=True, **settings)
        )


@pytest.fixture
def clients(server):
    with ExitStack() as stack:
        yield Clients(server, stack)
