"""One server for as many tests as can share it: ADK takes seconds to import."""

from __future__ import annotations

import pytest

from serving import AGENTS, Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Server:
    """Return a server of the test agents that all tests share; no session outlives its TTL."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, str(AGENTS), "--web", "--verbose") as running:
        yield running
