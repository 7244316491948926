"""Servers that authenticate callers by tokens, and by a proxy's header."""

from __future__ import annotations

import pytest
from tokens import ADMIN, AUDIENCE, ISSUER, SCRAPE, Issuer

from serving import AGENTS, serving

UNLIMITED = {
    f"LAPSE_{name}": "0"
    for name in (
        "CREATES_PER_MINUTE_PER_USER",
        "CREATES_PER_MINUTE_PER_ADDRESS",
        "WAITING_PER_USER",
        "WAITING_PER_ADDRESS",
    )
}
"""One user creates more here than the quotas let one."""


@pytest.fixture(scope="session")
def issuer():
    return Issuer()


@pytest.fixture(scope="session")
def token_server(tmp_path_factory, issuer):
    """Return a server that accepts the issuer's tokens only, from a header or a cookie."""
    settings = {
        "LAPSE_AUTH": "jwt",
        "LAPSE_JWT_KEY": issuer.public_pem.replace("\n", "\\n"),
        "LAPSE_JWT_ALGORITHMS": "ES256",
        "LAPSE_JWT_ISSUER": ISSUER,
        "LAPSE_JWT_AUDIENCE": f"other, {AUDIENCE}",
        "LAPSE_JWT_ROLE_CLAIM": "roles",
        "LAPSE_JWT_COOKIE": "token",
        "LAPSE_METRICS_OPEN": "true",
        **UNLIMITED,
    }
    arguments = ("--verbose", "--allow-origins", "http://page.test")
    folder = tmp_path_factory.mktemp("guarded")
    with serving(folder, str(AGENTS), *arguments, **settings) as server:
        yield server


@pytest.fixture(scope="session")
def proxy_server(tmp_path_factory):
    """Return a server that trusts a proxy at 127.0.0.2 and no other address."""
    settings = {
        "LAPSE_AUTH": "header",
        "LAPSE_AUTH_HEADER": "X-User",
        "LAPSE_AUTH_ROLE_HEADER": "X-Groups",
        "LAPSE_OPERATOR_ROLE": "lapse-operators",
        "LAPSE_AUTH_PROXIES": "127.0.0.2, fd00::/8",
        "LAPSE_METRICS_TOKEN": SCRAPE,
        "LAPSE_ADMIN_TOKEN": ADMIN,
        **UNLIMITED,
    }
    folder = tmp_path_factory.mktemp("proxied")
    with serving(folder, str(AGENTS), **settings) as server:
        yield server
