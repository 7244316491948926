"""The life of a session in a real browser: warned of, extended, resurrected, in several tabs."""

import re
import socketserver
import threading

import httpx
import pytest
from playwright.sync_api import expect

from serving import Server

pytestmark = pytest.mark.long

HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


class BreakingOff(socketserver.StreamRequestHandler):
    """Answers with the head and the first byte of a body."""

    def handle(self):
        while self.rfile.readline().strip():
            pass
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
        self.wfile.write(head.encode() + b"[")


@pytest.fixture
def broken_server():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), BreakingOff) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def status(page, name):
    expect(page.locator("#life")).to_have_attribute("data-status", name)


def past(page, words):
    expect(page.locator("#life-past")).to_contain_text(words)


def connection(page, name):
    expect(page.locator("#link")).to_have_attribute("data-state", name)


def button(page, name):
    return page.get_by_role("button", name=name)


def text(page):
    return page.get_by_label("Your message")


def lifecycle(page, demo_server):
    """Ask the server what became of a page's session."""
    user = page.locator("body").get_attribute("data-user")
    path = demo_server.path(page.url.partition("#")[2], "concierge", user)
    return demo_server.client.get(f"{path}/lifecycle").json()


def test_the_warning_comes_before_the_deadline_and_its_button_extends_the_session(
    open_page, demo_server
):
    page = open_page()
    text(page).focus()
    expect(button(page, "Keep it")).to_be_visible()
    before = lifecycle(page, demo_server)
    assert before["status"] == "waiting"
    expect(page.locator("lapse-notice")).to_contain_text(re.compile(r"closes in \d seconds?"))
    # By keyboard, and back to where one was.
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(button(page, "Keep it")).to_be_hidden()
    expect(text(page)).to_be_focused()
    assert lifecycle(page, demo_server)["expiresAt"] > before["expiresAt"]
    expect(page.locator("lapse-notice [role=status]")).to_contain_text("stays open")


def test_typing_extends_the_deadline(open_page, demo_server):
    """Seen to fail with a draft() that reads the record only."""
    page = open_page()
    status(page, "waiting")
    deadline = lifecycle(page, demo_server)["expiresAt"]
    while lifecycle(page, demo_server)["serverTime"] <= deadline:
        text(page).press_sequentially("hm ", delay=50)
    assert lifecycle(page, demo_server)["status"] == "waiting"
    past(page, "deadline moved on")


def test_sending_a_message_resurrects_a_session_that_expired_while_typing(open_page, demo_server):
    page = open_page()
    status(page, "waiting")
    session = page.url
    text(page).fill("A table for 4, please")
    status(page, "expired")
    expect(button(page, "Bring it back")).to_be_visible()
    text(page).press("Enter")
    expect(page.locator(".message.agent")).to_contain_text("reservation 1 for 4 guests")
    status(page, "used")
    past(page, "brought back")
    assert (page.url, lifecycle(page, demo_server)["resurrections"]) == (session, 1)


def test_two_tabs_show_the_same_and_a_reload_shows_the_whole_conversation(open_page, demo_server):
    one = open_page()
    status(one, "waiting")
    other = open_page("/" + "#" + one.url.partition("#")[2])
    status(other, "expired")
    status(one, "expired")
    button(one, "Bring it back").click()
    past(other, "brought back")
    text(other).fill("Good evening")
    other.reload()
    expect(text(other)).to_have_value("Good evening")
    text(other).press("Enter")
    for page in (one, other):
        status(page, "used")
        expect(page.locator(".message.agent")).to_contain_text("You said: Good evening")
        expect(page.locator("#list [aria-current]")).to_contain_text("Good evening")
    assert one.url == other.url


def test_the_page_survives_a_restart_of_the_server(open_page, demo_server):
    open_page.expected += ["net::ERR_"]
    page = open_page()
    connection(page, "live")
    session = page.url
    demo_server.kill()
    connection(page, "connecting")
    again = Server(
        demo_server.folder, "--port", demo_server.origin.rpartition(":")[2], **demo_server.settings
    )
    vars(demo_server).update(vars(again))
    status(page, "expired")
    button(page, "Bring it back").click()
    past(page, "brought back")
    text(page).fill("Still there?")
    text(page).press("Enter")
    expect(page.locator(".message.agent")).to_contain_text("Still there?")
    assert page.url == session


def test_an_answer_that_breaks_off_is_an_outage(open_page, demo_server, broken_server):
    """Seen to fail where only the head of an answer could break: an error nobody had caught."""
    open_page.expected += ["net::ERR_"]
    page = open_page()
    connection(page, "live")
    page.route("**/sessions", lambda route: route.continue_(url=broken_server))
    with page.expect_event("requestfailed"):
        text(page).fill("Still there?")
        text(page).press("Enter")
    expect(page.locator(".message.agent")).to_contain_text("Still there?")
    assert lifecycle(page, demo_server)["status"] == "used"


def test_the_page_polls_if_streams_do_not_come_through(open_page, demo_server):
    """Seen to fail with a watch that only tries to stream again."""
    open_page.context.route(
        "**/lifecycle/events", lambda route: route.fulfill(content_type="text/plain", body="")
    )
    page = open_page()
    connection(page, "polling")
    expect(button(page, "Keep it")).to_be_visible()
    status(page, "expired")
    button(page, "Bring it back").click()
    status(page, "waiting")


def test_a_hidden_page_pauses_and_catches_up_when_shown(open_page, demo_server):
    page = open_page()
    connection(page, "live")
    page.evaluate(HIDE, True)
    connection(page, "paused")
    # Nobody looks, and nobody is told.
    while lifecycle(page, demo_server)["status"] == "waiting":
        page.wait_for_timeout(100)
    expect(page.locator("#life")).not_to_have_attribute("data-status", "expired")
    page.evaluate(HIDE, False)
    status(page, "expired")


def test_a_message_to_a_purged_session_begins_a_new_one(open_page, demo_server):
    open_page.expected += ["status of 404"]
    page = open_page()
    connection(page, "live")
    gone = page.url
    user = page.locator("body").get_attribute("data-user")
    demo_server.client.delete(demo_server.path(gone.partition("#")[2], "concierge", user))
    status(page, "gone")
    text(page).fill("A table for 2")
    text(page).press("Enter")
    expect(page.locator(".message.agent")).to_contain_text("reservation 1 for 2 guests")
    status(page, "used")
    assert page.url != gone


def test_the_warning_uses_the_words_and_the_language_that_it_is_given(open_page):
    page = open_page()
    status(page, "waiting")
    page.evaluate(
        """() => {
          const notice = document.createElement('lapse-notice');
          const {app, user} = document.body.dataset;
          const words = {'app-name': app, 'user-id': user, 'session-id': location.hash.slice(1),
                         'base-url': new URL('.', document.baseURI).href,
                         'id': 'mine', 'lang': 'de', 'keep': 'Bleib',
                         'closing': 'Noch {time}'};
          for (const [name, value] of Object.entries(words)) notice.setAttribute(name, value);
          document.querySelector('main').append(notice);
        }"""
    )
    expect(page.locator("#mine")).to_contain_text(re.compile(r"Noch \d Sekunden?"))
    expect(page.locator("#mine button")).to_have_text("Bleib")


def test_the_page_has_a_strict_policy_and_keeps_the_name_of_its_guest(demo_server):
    with httpx.Client(base_url=demo_server.url, trust_env=False) as client:
        page = client.get("/")
        guest = client.cookies["lapse_demo_user"]
        again = client.get("/")
        asset = client.get("/lapse/demo/chat.js")
        beyond = client.get("/lapse/demo/..%2f..%2fpage.py")
        forged = client.get("/", headers={"cookie": "lapse_demo_user=guest-1<script>"})
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert f'data-user="{guest}"' in page.text
    assert f'data-user="{guest}"' in again.text
    assert (asset.status_code, beyond.status_code) == (200, 400)
    assert "<script>" not in forged.text
