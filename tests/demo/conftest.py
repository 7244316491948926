"""One browser and one server of the demo for a whole module."""

import pytest

import chromium
from serving import serving

browser = chromium.browser


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory):
    """The demo; its sessions live for four seconds."""
    settings = {"SESSION_CLEANUP_TTL_MINUTES": str(4 / 60)}
    with serving(tmp_path_factory.mktemp("page"), **settings) as server:
        server.settings = settings
        yield server


@pytest.fixture
def open_page(browser, demo_server):
    """Opens pages of one guest; an error in the browser's console fails the test."""
    context = browser.new_context(viewport={"width": 1360, "height": 860}, locale="en-GB")
    context.set_default_timeout(15_000)
    complaints = []
    expected = []

    def open_page(address="/"):
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type in {"error", "warning"} and complaints.append(message.text)
            ),
        )
        page.goto(demo_server.url + address)
        return page

    open_page.context = context
    open_page.expected = expected
    yield open_page
    context.close()
    assert [said for said in complaints if not any(told in said for told in expected)] == []
