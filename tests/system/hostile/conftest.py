"""One server with tight bounds for as many tests as can share it."""

import pytest
from fuzz import serving_agents

BOUNDS = {
    "LAPSE_MAX_BODY_KIB": "256",
    "LAPSE_MAX_STATE_KIB": "64",
    "LAPSE_BODY_SECONDS": "1",
    "LAPSE_HEADER_SECONDS": "1.2",
    "LAPSE_MAX_CONNECTIONS": "1100",
    "ADK_DEFAULT_APP_NAME": "parrot",  # ADK rewrites paths where there is one
}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with serving_agents(tmp_path_factory.mktemp("hostile"), **BOUNDS) as running:
        yield running
