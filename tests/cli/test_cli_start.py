"""What `lapse serve` has loaded at its first answer, and what its first request of a kind loads."""

import re

import pytest

from serving import serving

TOKEN = "operators-token-0123456789"

LATER = {
    "asyncpg",  # this store is SQLite
    "itsdangerous",
    "jinja2",
    "lapse.dashboard.charts",
    "lapse.dashboard.pages",
    "lapse.dashboard.routes",
    "lapse.databases.report",
    "lapse.ttl.simulation",
    "lapse.testing",
    "matplotlib",
    "pyarrow",
}
"""What a server does not need for its first answer."""


def loaded(server):
    """Return the modules that a server has imported, as Python itself tells on its log."""
    return set(re.findall(r"^import time: .*\| +(\S+)$", server.log, re.MULTILINE))


@pytest.fixture
def server(tmp_path):
    with serving(
        tmp_path, fresh=True, PYTHONPROFILEIMPORTTIME="1", LAPSE_ADMIN_TOKEN=TOKEN
    ) as made:
        yield made


def test_the_first_answer_waits_for_nothing_that_it_does_not_need(server):
    """Seen to fail with an import of `lapse.dashboard.routes` at the top of the entrance."""
    assert server.client.get("/list-apps").status_code == 200
    before = loaded(server)
    assert "lapse.web.application" in before
    assert before & LATER == set()


def test_the_operators_pages_load_at_their_first_request(server):
    """Seen to fail with an entrance that stays in its place, and with one that is only left."""
    answer = server.client.get("/lapse/", follow_redirects=True)
    assert (answer.status_code, "jinja2" in loaded(server)) == (200, True)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert server.client.get("/lapse/api/stats", headers=bearer).status_code == 200
    assert server.client.get("/lapse", follow_redirects=False).status_code == 307
    assert server.client.get("/lapse/none", follow_redirects=False).status_code == 303
