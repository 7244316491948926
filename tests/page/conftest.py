"""One browser and one server of the demo for a whole module.

The helper that serves stands in the folder of the HTTP tests.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

sys.path.append(str(Path(__file__).parents[1] / "http"))

from serving import serving

CHROMIUM = shutil.which("chromium")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("NO BROWSER: apt-get install chromium, and this is tried, too")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The demo; its sessions live for four seconds."""
    settings = {"SESSION_CLEANUP_TTL_MINUTES": str(4 / 60)}
    with serving(tmp_path_factory.mktemp("page"), **settings) as server:
        server.settings = settings
        yield server


@pytest.fixture
def visit(browser, served):
    """Opens pages of one guest; whatever a page complains of fails the test."""
    context = browser.new_context(viewport={"width": 1360, "height": 860}, locale="en-GB")
    context.set_default_timeout(15_000)
    complaints = []
    expected = []

    def visit(address="/"):
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type in {"error", "warning"} and complaints.append(message.text)
            ),
        )
        page.goto(served.url + address)
        return page

    visit.context = context
    visit.expected = expected
    yield visit
    context.close()
    assert [said for said in complaints if not any(told in said for told in expected)] == []
