"""A real browser for the tests that need one."""

import os
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

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


# An expectation ends as soon as it holds. The bound is for pages that reconnect: their pauses grow
# while a server starts, and a busy machine takes long to start one.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser():
    """One browser for a whole module."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("NO BROWSER: apt-get install chromium, and this is tried, too")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()
