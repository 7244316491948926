"""One application with open operators' pages for a whole module."""

import pytest
from operators_server import operated

import chromium
from backends import BACKENDS

browser = chromium.browser


@pytest.fixture(scope="module", params=["sqlite"])
def dashboard(request, tmp_path_factory):
    """Serve an application with the dashboard; each test uses session ids of its own."""
    (backend,) = [backend for backend in BACKENDS if backend.name == request.param]
    with (
        backend.empty(tmp_path_factory.mktemp("operated")) as store_url,
        operated(store_url) as found,
    ):
        yield found
