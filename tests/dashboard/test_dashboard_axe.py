"""axe-core finds no fault with any of the operators' pages, in both colour schemes and on a phone.

axe-core comes with `axe-playwright-python`, whose file is all that is used of it.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from operators_server import TOKEN, operated, query

from backends import BACKENDS
from lapse.core.keys import SessionKey
from lapse.retention.policy import parse_policy

ARCHIVING = parse_policy('[default]\nage = "0.001s"\n')

pytestmark = pytest.mark.long

if find_spec("axe_playwright_python") is None and "CI" not in os.environ:
    pytest.skip(
        "NO AXE: pip install axe-playwright-python, and this is tried, too", allow_module_level=True
    )

WAYS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}},
    "phone": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
}
PAGES = (
    "",
    "?range=1h",
    "?range=5w",
    "sessions",
    "sessions?status=expired",
    "sessions?user=nobody",
    "sessions?q=s",
    "sweep",
    "acts",
    "help",
    "retention",
    "retention/confirm",
    "hold",
    "hold/release?user=held",
    "hold/release?user=nobody",
    "sessions?status=archived",
    "no/such/page",
)
RUN = """async () => {
  const found = await axe.run(document, {resultTypes: ['violations']});
  return found.violations.map(({id, help, nodes}) => `${id}: ${help}: ${nodes[0].html}`);
}"""


def axe():
    """Return the script of axe-core."""
    spec = find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module")
def lived_pages(tmp_path_factory):
    """A server with sessions of each status, an act and a brake's page."""
    backend = next(one for one in BACKENDS if one.name == "sqlite")
    folder = tmp_path_factory.mktemp("axe")
    policy = folder / "policy.toml"
    policy.write_text('[default]\nidle = "90d"\n[apps.shop]\nage = "9d"\n')
    with (
        backend.empty(folder) as url,
        operated(url, retention_file=policy) as server,
    ):
        for number in range(3):
            server.create(f"s-waits-{number}")
            server.use(f"s-used-{number}")
        for name in ("s-archived", "s-pinned"):
            key = server.use(name)
            server.do(server.store.archive_sessions([key], ARCHIVING))
        server.do(server.store.pin(key))
        held = SessionKey("", "held", "")
        server.do(server.store.put_on_hold(held, reason="case 7", by="op"))
        yield server, server.expired("s-expired"), key


@pytest.mark.parametrize("way", WAYS)
def test_axe_finds_no_fault(browser, lived_pages, way):
    """Seen to fail while a phone's keyboard could not scroll the wide tables."""
    server, key, archived = lived_pages
    context = browser.new_context(bypass_csp=True, reduced_motion="reduce", **WAYS[way])
    context.set_default_timeout(30_000)
    page = context.new_page()
    found = {}

    def look(path):
        page.goto(f"{server.url}/lapse/{path}")
        page.add_script_tag(content=axe())
        if faults := page.evaluate(RUN):
            found[path] = faults

    look("login")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.locator(".verdicts").wait_for()
    asked, of_archived = query(key), query(archived)
    for path in (
        *PAGES,
        f"session?{asked}",
        f"session/resurrect?{asked}",
        f"hold?{asked}",
        f"session?{of_archived}",
        f"session/restore?{of_archived}",
    ):
        look(path)
    context.close()
    assert found == {}
