"""The browser's module passes on what retention does to a session."""

import pytest

from lapse.retention.policy import read_policy
from lapse.retention.store import RetentionStore
from noticing import Replica

pytestmark = pytest.mark.long

WATCH = """
async (path) => {
  const client = await import("/lapse/client.js");
  window.told = [];
  window.cut = new AbortController();
  window.watch = client.watchSession({
    appName: "app", userId: "ann", sessionId: path,
    fetch: (url, init) => fetch(url, {...init, signal: AbortSignal.any([init.signal, cut.signal])}),
  });
  for (const kind of ["archiving", "archived", "restored", "used"]) {
    watch.addEventListener(kind, ({detail}) => told.push({...detail, stands: watch.archivesAt}));
  }
}
"""


def kinds(page):
    return [one["kind"] for one in page.evaluate("told")]


def wait_for(page, *expected):
    page.wait_for_function(f"told.length >= {len(expected)}")
    assert kinds(page) == [*expected]


def test_a_page_hears_of_archive_and_restore(sqlite_url, tmp_path, browser):
    """Also after its stream was cut. Seen to fail with a watch that ends at a used session."""
    path = tmp_path / "policy.toml"
    path.write_text('[default]\nidle = "12s"\n')
    with Replica(sqlite_url, retention_file=path) as server:
        server.do(
            lambda service: RetentionStore(service.store).confirm_retention(
                read_policy(path), by="op"
            )
        )
        server.create("s1")
        server.say("s1")
        page = browser.new_page()
        page.goto(f"{server.url}/lapse/client.js")
        page.evaluate(WATCH, "s1")
        page.wait_for_function("watch.connection === 'live'")
        page.evaluate("cut.abort(); cut = new AbortController()")
        wait_for(page, "archiving")
        (told,) = page.evaluate("told")
        assert told["archivesAt"] == told["stands"]
        assert 0 < told["timeLeftSeconds"] <= 6
        wait_for(page, "archiving", "archived")
        assert page.evaluate("watch.isRestorable")
        assert page.evaluate("watch.archivesAt") is None
        page.evaluate("watch.resurrect()")
        wait_for(page, "archiving", "archived", "restored")
        page.close()
