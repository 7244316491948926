"""A server that knows its callers by their tokens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tokens import AUDIENCE, ISSUER, Issuer

sys.path.insert(0, str(Path(__file__).parent.parent / "http"))

from serving import AGENTS, serving


@pytest.fixture(scope="session")
def issuer():
    return Issuer()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory, issuer):
    """Return a server, with ADK's developer routes, that accepts the issuer's tokens only."""
    settings = {
        "LAPSE_AUTH": "jwt",
        "LAPSE_JWT_KEY": issuer.public_pem,
        "LAPSE_JWT_ALGORITHMS": "ES256",
        "LAPSE_JWT_ISSUER": ISSUER,
        "LAPSE_JWT_AUDIENCE": f"other, {AUDIENCE}",
        "LAPSE_JWT_ROLE_CLAIM": "realm.roles",
        "LAPSE_JWT_COOKIE": "token",
        "LAPSE_JWT_LEEWAY_SECONDS": "0",
    }
    folder = tmp_path_factory.mktemp("guarded")
    with serving(folder, str(AGENTS), "--web", "--verbose", **settings) as server:
        yield server
