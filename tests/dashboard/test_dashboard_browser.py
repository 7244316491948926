"""The operators' pages in a real browser: with a script and without, light and dark, on a phone."""

import re
import socket
from datetime import timedelta

import pytest
from operators_server import TOKEN, operated, query
from playwright.sync_api import expect

from backends import BACKENDS

pytestmark = pytest.mark.long

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
  document.dispatchEvent(new Event('visibilitychange'));
}"""
CONTRAST = """selector => {
  const light = colour => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
    const [r, g, b] = parts.map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll(selector)].map(element => {
    const ink = light(getComputedStyle(element).color);
    return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  });
}"""
READ_ALOUD = "h1, h2, p, a, small, dt, dd, label, summary, .status, footer, li"


@pytest.fixture
def open_page(browser, dashboard):
    """Opens a page, logged in; an error in the browser's console fails the test."""
    contexts, complaints = [], []

    def open_page(path="/lapse/", *, base=dashboard.url, **how):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type in {"error", "warning"} and complaints.append(message.text)
            ),
        )
        page.goto(base + path)
        log_in(page)
        return page

    open_page.expected = []
    yield open_page
    for context in contexts:
        context.close()
    assert [
        said for said in complaints if not any(told in said for told in open_page.expected)
    ] == []


def log_in(page, token=TOKEN, name="ann"):
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").click()


def link(page, name):
    return page.get_by_role("link", name=name, exact=True)


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def confirmed(page, name):
    """Ask for an action, see what it says, and do it."""
    link(page, name).click()
    expect(page.get_by_role("heading", name=re.compile(r"\?$"))).to_be_visible()
    button(page, name).click()


def shows(page, *ids):
    expect(page.locator(".rows .id")).to_have_text(list(ids))


def test_a_log_in_leads_to_the_page_first_asked_for_and_a_log_out_ends_it(browser, dashboard):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{dashboard.url}/lapse/sessions?status=used")
        log_in(page, "not the token")
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        log_in(page)
        expect(page).to_have_url(f"{dashboard.url}/lapse/sessions?status=used")
        expect(page.locator("header")).to_contain_text("operator:ann")
        button(page, "Log out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        page.goto(f"{dashboard.url}/lapse/")
        expect(page.get_by_label("Token")).to_be_visible()


def test_an_amber_verdict_links_to_its_reason_and_its_remedy(open_page, dashboard):
    dashboard.create("overdue", ago=timedelta(hours=1))
    page = open_page()
    amber = page.get_by_role("link", name=re.compile("A session is overdue by"))
    amber.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{dashboard.url}/lapse/#why-overdue")
    reason = page.locator("#why-overdue")
    expect(reason).to_be_in_viewport()
    expect(reason.get_by_role("listitem").first).to_be_visible()
    reason.get_by_role("link", name="See what a sweep would do").click()
    expect(page.locator("main")).to_contain_text("would expire")
    button(page, "Sweep now").click()
    expect(page.get_by_role("status")).to_contain_text(re.compile("Swept: [1-9]"))


@pytest.mark.parametrize("scripts", [True, False])
def test_every_action_asks_for_confirmation_reports_its_result_and_is_recorded(
    open_page, dashboard, scripts
):
    key = dashboard.create(f"acted on {scripts}")
    page = open_page(f"/lapse/session?{query(key)}", java_script_enabled=scripts)
    timeline = page.locator(".timeline li")
    expect(timeline).to_contain_text(["Created", "Now: waiting", "Expires", "Purged"])
    expect(timeline.nth(1).locator(".gap")).to_have_text(re.compile("min"))
    for name, told, status in (
        ("Extend", "The session has a fresh TTL.", "waiting"),
        ("Expire now", "The session is expired.", "expired"),
        ("Resurrect", "The session waits again.", "waiting"),
    ):
        confirmed(page, name)
        expect(page.get_by_role("status")).to_have_text(told)
        assert dashboard.status(key) == status
        expect(timeline.filter(has_text="by operator:ann").last).to_be_visible()
    link(page, "Delete").click()
    (button if scripts else link)(page, "Cancel").click()
    assert dashboard.status(key) == "waiting"
    confirmed(page, "Delete")
    expect(page.get_by_role("status")).to_have_text("The session is deleted.")
    assert dashboard.status(key) is None
    page.goto(f"{dashboard.url}/lapse/acts")
    expect(page.locator("tbody tr").nth(0)).to_contain_text("deleted")
    expect(page.locator("tbody tr").nth(3)).to_contain_text("extended")


@pytest.mark.parametrize("scripts", [True, False])
def test_sessions_are_found_by_status_app_user_and_prefix_of_the_id(open_page, dashboard, scripts):
    own = f"found-{scripts}"
    dashboard.create(f"{own}-waiting", app=own, user="ann")
    dashboard.expired(f"{own}-expired", app=own, user="ann")
    dashboard.use(f"{own}-used", app=own, user="bob")
    page = open_page("/lapse/sessions", java_script_enabled=scripts)
    page.get_by_label("App").fill(own)
    button(page, "Filter").click()
    shows(page, f"{own}-expired", f"{own}-waiting", f"{own}-used")
    page.get_by_role("link", name=re.compile("^expired")).click()
    shows(page, f"{own}-expired")
    page.get_by_label("User").fill("bob")
    button(page, "Filter").click()
    expect(page.locator("main")).to_contain_text("No session matches.")
    link(page, "Clear").click()
    page.get_by_role("link", name=re.compile("^all")).click()
    page.get_by_label("Id begins with").fill(f"{own}-w")
    page.keyboard.press("Enter")
    shows(page, f"{own}-waiting")
    page.get_by_role("link", name=f"Extend {own}-waiting").click()
    button(page, "Extend").click()
    expect(page.get_by_role("status")).to_have_text("The session has a fresh TTL.")


def test_a_list_can_be_paged_forward_and_back(open_page, dashboard):
    for number in range(43):
        dashboard.create(f"page-{number:02}", app="long")
    page = open_page("/lapse/sessions?app=long", java_script_enabled=False)
    shows(page, *(f"page-{number:02}" for number in range(40)))
    link(page, "Next page").click()
    shows(page, *(f"page-{number:02}" for number in range(40, 43)))
    link(page, "First page").click()
    shows(page, *(f"page-{number:02}" for number in range(40)))


def test_numbers_refresh_in_place_and_an_opened_table_stays_open(open_page, dashboard):
    asked = []
    dashboard.create("before one looks")
    page = open_page("/lapse/sessions")
    page.clock.install()
    page.goto(f"{dashboard.url}/lapse/")
    page.on("request", lambda sent: sent.resource_type == "fetch" and asked.append(sent.url))
    waiting = page.locator(".numbers dd").first
    before = int(waiting.text_content().split("for")[0].replace(",", ""))
    page.get_by_text("As a table").click()
    dashboard.create("while one looks")
    page.clock.fast_forward(5_100)
    expect(waiting).to_contain_text(str(before + 1))
    expect(page.locator("details table")).to_be_visible()
    assert {url.rpartition("/")[2] for url in asked} == {"live"}

    page.evaluate(HIDE, True)
    asked.clear()
    page.clock.fast_forward(60_000)
    dashboard.create("while nobody looks")
    assert asked == []
    page.evaluate(HIDE, False)
    expect(waiting).to_contain_text(str(before + 2))


def test_stale_numbers_are_marked_and_an_ended_log_in_is_asked_for_again(open_page, dashboard):
    page = open_page("/lapse/sessions")
    page.clock.install()
    page.goto(f"{dashboard.url}/lapse/")
    open_page.expected += ["net::ERR_FAILED"]
    page.route("**/lapse/live", lambda route: route.abort())
    page.clock.fast_forward(5_100)
    expect(page.get_by_text("no longer refreshed")).to_be_visible()
    page.unroute("**/lapse/live")
    page.clock.fast_forward(5_100)
    expect(page.get_by_text("no longer refreshed")).to_be_hidden()
    page.context.clear_cookies()
    page.clock.fast_forward(5_100)
    expect(page.get_by_label("Token")).to_be_visible()


@pytest.mark.parametrize("path", ["/lapse/", "/lapse/sessions"])
def test_a_page_whose_server_never_answers_says_so(open_page, path):
    """Seen to fail without the time-out of `asked`: the page waits without a word."""
    page = open_page(path)
    note = page.locator("#stale, #unanswered")
    expect(note).to_be_hidden()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and no more
        elsewhere = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        asked = re.compile(r"/lapse/(live|sessions\?)")
        page.route(asked, lambda route: route.continue_(url=elsewhere))
        if path != "/lapse/":
            page.get_by_label("Search").fill("x")
        expect(note).to_be_visible(timeout=60_000)
        expect(note).to_contain_text("the server does not answer")
        page.unroute(asked)
        if path != "/lapse/":
            page.get_by_label("Search").fill("xy")
        expect(note).to_be_hidden(timeout=60_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_have_enough_contrast(open_page, dashboard, scheme):
    dashboard.create(f"seen in {scheme}", ago=timedelta(hours=1))
    key = dashboard.expired(f"expired in {scheme}")
    page = open_page(color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 3 * 128) is (scheme == "light")
    for path in ("", f"session?{query(key)}", f"session/delete?{query(key)}", "sweep", "acts"):
        page.goto(f"{dashboard.url}/lapse/{path}")
        plain = f":is({READ_ALOUD}):not(.primary)"
        assert min(page.evaluate(CONTRAST, plain)) >= 4.5, path
        assert page.locator("h1").count() == 1
        assert page.locator("main").count() == 1


def test_no_page_is_cut_off_on_a_phone(open_page, dashboard):
    key = dashboard.expired("a-rather-long-id-" + "0123456789" * 10, user="u" * 128)
    page = open_page(**PHONE)
    for path in ("", "sessions", f"session?{query(key)}", "sweep", "brake", "acts"):
        page.goto(f"{dashboard.url}/lapse/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == 360, path
    page.goto(f"{dashboard.url}/lapse/sessions?prefix=a-rather")
    page.get_by_role("link", name="Resurrect").click()
    button(page, "Resurrect").tap()
    expect(page.get_by_role("status")).to_have_text("The session waits again.")


def test_the_list_follows_what_is_typed_and_the_address_with_it(open_page, dashboard):
    for name in ("typed-one", "typed-two", "other"):
        dashboard.create(name, app="typing")
    page = open_page("/lapse/sessions?app=typing")
    shows(page, "other", "typed-one", "typed-two")
    page.keyboard.press("/")
    page.keyboard.type("typed-")
    shows(page, "typed-one", "typed-two")
    page.keyboard.type("tw")
    shows(page, "typed-two")
    expect(page).to_have_url(re.compile("q=typed-tw"))
    page.reload()
    shows(page, "typed-two")


@pytest.mark.parametrize("scripts", [True, False])
def test_selected_sessions_are_acted_on_together_after_a_dry_run(open_page, dashboard, scripts):
    app = f"many-{scripts}"
    keys = [dashboard.create(f"{app}-{number}", app=app) for number in range(3)]
    page = open_page(f"/lapse/sessions?app={app}", java_script_enabled=scripts)
    if scripts:
        page.get_by_label("all on this page").check()
    else:
        page.get_by_label("all that match the filter").check()
    page.get_by_label(f"Select {app}-2").uncheck()
    button(page, "Expire now selected…").click()
    changing = 2 if scripts else 3
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Expire now {changing} sessions?")
    assert {dashboard.status(key) for key in keys} == {"waiting"}
    button(page, "Expire now").click()
    expect(page.get_by_role("status")).to_have_text(f"Expire now: done for {changing} sessions.")
    expect(page).to_have_url(re.compile(f"app={app}"))
    assert [dashboard.status(key) for key in keys].count("expired") == changing


def test_an_act_in_a_list_is_one_page_load(open_page, dashboard):
    key = dashboard.create("one load", app="one-load")
    page = open_page("/lapse/sessions?app=one-load")
    loads = []
    page.on("framenavigated", lambda frame: loads.append(frame.url))
    page.get_by_role("link", name="Extend one load").click()
    expect(page.get_by_role("dialog")).to_contain_text("Extend this session?")
    page.keyboard.press("Escape")
    assert loads == []
    page.get_by_role("link", name="Extend one load").click()
    button(page, "Extend").click()
    expect(page.get_by_role("status")).to_have_text("The session has a fresh TTL.")
    expect(page).to_have_url(re.compile("sessions\\?app=one-load&done=extend"))
    assert len(loads) == 1
    assert dashboard.status(key) == "waiting"


def test_a_bar_tells_its_values_under_the_pointer_and_by_keys(open_page, dashboard):
    dashboard.create("for a bar", ago=timedelta(0))
    page = open_page("/lapse/?range=1h")
    told = page.locator(".readout")
    slots = page.locator("rect.slot").all()
    texts = []
    for slot in slots[-2:]:  # the slot of the creation may have ended since
        slot.hover()
        expect(told).to_contain_text("UTC: ")
        texts.append(told.inner_text())
    assert re.search(r": \d+ created", "".join(texts))
    page.locator("#chart").focus()
    page.keyboard.press("Home")
    expect(page.locator("rect.slot.shown")).to_have_attribute("x", "0.0")
    page.keyboard.press("End")
    expect(told).to_have_text(texts[1])
    page.keyboard.press("ArrowLeft")
    expect(told).to_have_text(texts[0])
    page.keyboard.press("ArrowRight")
    expect(told).to_have_text(texts[1])


def test_the_pages_are_the_same_on_postgresql(open_page, browser):
    (postgres,) = [backend for backend in BACKENDS if backend.name == "postgres"]
    with postgres.empty(None) as store_url, operated(store_url) as found:
        key = found.create("one")
        page = open_page(base=found.url)
        expect(page.locator(".numbers dd").first).to_contain_text("1")
        link(page, "one").click()
        confirmed(page, "Expire now")
        assert found.status(key) == "expired"
        page.goto(f"{found.url}/lapse/sessions?status=expired")
        shows(page, "one")
