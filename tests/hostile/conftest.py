"""One server with tight bounds for as many tests as can share it."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "http"))

from serving import AGENTS, serving

BOUNDS = {
    "LAPSE_MAX_BODY_KIB": "256",
    "LAPSE_MAX_STATE_KIB": "64",
    "LAPSE_BODY_SECONDS": "1.5",
    "LAPSE_HEADER_SECONDS": "2",
    "LAPSE_MAX_CONNECTIONS": "1100",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    # Artifacts are kept beside the agents, and ADK's developer routes write there, too.
    agents = shutil.copytree(AGENTS, folder / "agents")
    settings = BOUNDS | {"HOME": str(folder)}  # ADK writes there what it is told of telemetry
    with serving(folder, str(agents), "--web", "--verbose", **settings) as running:
        yield running
