"""`docs/openapi.json` is what `make openapi` writes and what a server describes."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lapse.testing.server import Server
from serving import environment

pytestmark = pytest.mark.long

DOCS = Path(__file__).parents[3] / "docs"


def test_the_description_in_the_tree_is_the_one_that_the_code_gives(tmp_path):
    """Seen to fail with another docstring of the route `pin`."""
    made = tmp_path / "openapi.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(DOCS / "openapi.py"), str(made)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    same = made.read_text("utf-8") == (DOCS / "openapi.json").read_text("utf-8")
    assert same, "docs/openapi.json is not what the routes are: make openapi"


def test_a_server_describes_every_route_of_the_file_in_the_same_words():
    """Seen to fail with a summary changed in the file."""
    told = json.loads((DOCS / "openapi.json").read_text("utf-8"))
    users = {"LAPSE_AUTH": "header", "LAPSE_AUTH_PROXIES": "127.0.0.1"}
    with Server(**users, LAPSE_SELF_ERASURE="true") as server:
        ada = {"X-Forwarded-User": "ada"}
        served = httpx.get(f"{server.url}/openapi.json", headers=ada, trust_env=False).json()
    assert told["paths"].keys() <= served["paths"].keys()
    for path, methods in told["paths"].items():
        assert methods.items() <= served["paths"][path].items(), path
    schemas = served["components"]["schemas"]
    for name, schema in told["components"]["schemas"].items():
        assert schemas[name] == schema, name
