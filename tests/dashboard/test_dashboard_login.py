"""The log-in of operators: its cookie, its attempts, its token."""

from datetime import timedelta

import httpx
import pytest
from operators_server import FORM, TOKEN, operated
from pydantic import SecretStr

import prefixed
from lapse.core.errors import InvalidValueError
from lapse.core.request import KNOWN
from lapse.dashboard import options
from lapse.dashboard.cookies import Attempts, Signatures
from lapse.dashboard.options import OperatorOptions


def test_the_cookie_of_a_log_in_is_hidden_from_scripts_and_other_sites(dashboard):
    client = dashboard.client()
    sent = {"token": TOKEN, "name": "ann", "then": "/lapse/sessions?status=used"}
    answer = client.post("/lapse/login", data=sent, headers=dashboard.own_origin())
    assert answer.headers["Location"] == f"{prefixed.prefix}/lapse/sessions?status=used"
    cookie = answer.headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=strict", f"Path={prefixed.prefix}/lapse/", "Max-Age=43200"):
        assert part in cookie
    assert TOKEN not in cookie
    page = client.get("/lapse/")
    assert "operator:ann" in page.text
    form = {"form_token": FORM.search(page.text)[1]}
    assert (
        client.post("/lapse/logout", data=form, headers=dashboard.own_origin()).status_code == 303
    )
    assert client.get("/lapse/").status_code == 303


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/lapse/\\evil", "/other", "/lapse/\n", ""],
)
def test_a_log_in_redirects_to_pages_of_the_dashboard_only(dashboard, elsewhere):
    sent = {"token": TOKEN, "then": elsewhere}
    answer = dashboard.client().post("/lapse/login", data=sent, headers=dashboard.own_origin())
    assert answer.headers["Location"] == f"{prefixed.prefix}/lapse/"


def test_a_log_in_from_another_origin_or_with_an_invalid_name_is_refused(dashboard):
    foreign = {"Origin": "https://evil.example"}
    client = dashboard.client()
    assert client.post("/lapse/login", data={"token": TOKEN}, headers=foreign).status_code == 403
    for name in ("x" * 65, "a\nb"):
        sent = {"token": TOKEN, "name": name}
        answer = client.post("/lapse/login", data=sent, headers=dashboard.own_origin())
        assert (answer.status_code, "printable" in answer.text) == (403, True)
    long = client.post("/lapse/login", content=b"x" * 20_000, headers=dashboard.own_origin())
    assert long.status_code == 413


RIGHT = {"Authorization": f"Bearer {TOKEN}"}
WRONG = {"Authorization": "Bearer wrong"}


def test_after_five_wrong_tokens_an_address_has_to_wait_and_the_right_one_passes_all_the_same(
    tmp_path,
):
    """Seen to fail with the wait looked at before the token."""
    with operated(f"sqlite:///{tmp_path}/lapse.db") as found:
        client, own = found.served.client, found.own_origin()
        for _ in range(4):
            answer = client.post("/lapse/login", data={"token": "wrong"}, headers=own)
            assert (answer.status_code, "not the token" in answer.text) == (403, True)
        assert client.get("/lapse/api/stats", headers=WRONG).status_code == 404
        for answer in (
            client.post("/lapse/login", data={"token": "wrong"}, headers=own),
            client.get("/lapse/api/stats", headers=WRONG),
        ):
            assert answer.status_code == 429
            assert 0 < int(answer.headers["Retry-After"]) <= 60
        assert client.get("/lapse/api/stats", headers=RIGHT).status_code == 200
        answer = client.post("/lapse/login", data={"token": TOKEN}, headers=own)
        assert answer.status_code == 303
        assert client.get("/lapse/api/stats", headers=WRONG).status_code == 429


def test_wrong_tokens_are_counted_by_the_address_that_a_trusted_proxy_names(tmp_path):
    """Seen to fail with the peer's address, and with each address of a /64 by itself."""
    with operated(f"sqlite:///{tmp_path}/lapse.db", auth_proxies="127.0.0.1") as found:

        def asked(forwarded):
            headers = WRONG | {"X-Forwarded-For": forwarded}
            return found.served.client.get("/lapse/api/stats", headers=headers).status_code

        assert [asked("203.0.113.9") for _ in range(6)] == [404] * 5 + [429]
        assert asked("203.0.113.10") == 404
        # What a client wrote to the left of it counts for nothing.
        assert asked("198.51.100.1, 203.0.113.9") == 429
        assert [asked(f"2001:db8::{n}") for n in range(6)] == [404] * 5 + [429]
        assert asked("2001:db8:0:1::1") == 404


@pytest.mark.parametrize("proto", ["https", "https, http"])
def test_a_page_without_encryption_cannot_change_anything_on_a_server_with_it(dashboard, proto):
    """Seen to fail with origins that are compared without their scheme."""
    client, host = dashboard.client(), dashboard.served.origin.removeprefix("http://")
    sent = {"token": TOKEN, "name": "ann"}
    encrypted = {"X-Forwarded-Proto": proto}
    for origin, status in ((f"http://{host}", 403), (f"https://{host}", 303)):
        headers = encrypted | {"Origin": origin}
        answer = client.post("/lapse/login", data=sent, headers=headers)
        assert answer.status_code == status
    # A proxy that does not tell leaves both possible.
    for origin in (f"http://{host}", f"https://{host}"):
        answer = client.post("/lapse/login", data=sent, headers={"Origin": origin})
        assert answer.status_code == 303


def test_a_script_of_another_origins_page_reads_no_page_of_a_logged_in_operator(dashboard):
    """CORS may let any page read: ADK's `--allow-origins '*'`. Seen to fail without the check."""
    client, _ = dashboard.logged_in()
    for path in ("/lapse/", "/lapse/acts", "/lapse/acts.csv"):
        asked = client.get(path, headers={"Origin": "https://evil.example"})
        assert asked.status_code == 403
        assert client.get(path, headers=dashboard.own_origin()).status_code == 200


def test_failed_log_ins_are_counted_for_each_address_and_forgotten_later():
    attempts = Attempts()
    for number in range(10_005):
        attempts.failed(f"address {number}")
    for _ in range(5):
        assert not attempts.wait("one")
        attempts.failed("one")
    assert attempts.wait("one") > timedelta(seconds=50)
    assert not attempts.wait("other")
    assert len(attempts._failures) == 10_000


def test_a_cookie_is_invalid_after_its_time_or_with_another_token():
    token, hours = SecretStr(TOKEN), timedelta(hours=12)
    cookie = Signatures(token, hours).cookie("ann")
    assert Signatures(token, hours).read_cookie(cookie).name == "operator:ann"
    assert Signatures(token, timedelta(seconds=-1)).read_cookie(cookie) is None
    assert Signatures(SecretStr(TOKEN + "x"), hours).read_cookie(cookie) is None
    assert Signatures(token, hours).read_cookie(Signatures(token, hours).form_token("x")) is None
    assert not Signatures(None, hours).is_token("")


def test_without_a_token_processes_that_share_a_key_accept_each_others_forms(monkeypatch):
    """Seen to fail with a key that each object makes for itself."""
    monkeypatch.setattr(options, "_own_key", [b"k" * 32])
    hours, made = timedelta(hours=12), []
    for key in (b"a", b"a", b"b"):
        options.share_key(key * 32)
        made.append(Signatures(None, hours))
    one, other, stranger = made
    assert other.is_form_token(one.form_token("ann"), "ann")
    assert not stranger.is_form_token(one.form_token("ann"), "ann")


def test_a_token_that_is_weak_or_cannot_be_sent_in_a_header_is_refused():
    for token in ("short", "x" * 23, "é" * 30, "with spaces in it, many of them"):
        with pytest.raises(InvalidValueError, match="LAPSE_ADMIN_TOKEN") as caught:
            OperatorOptions(token=SecretStr(token))
        assert token not in str(caught.value)
    assert TOKEN not in repr(OperatorOptions(token=SecretStr(TOKEN)))


def asking(dashboard, told):
    """Return a client of the application whose server notes in `told` that a caller is known."""

    async def server(scope, receive, send):
        scope["extensions"] = {KNOWN: lambda: told.append(scope["path"])}
        await dashboard.served.app(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url=dashboard.served.url)


@pytest.mark.at_root
def test_the_server_is_told_that_an_operator_is_known_and_of_nobody_else(dashboard):
    """Seen to fail without `tell_known`, in the log-in, for the cookie and for the token."""
    told, own = [], dashboard.own_origin()

    async def ask():
        async with asking(dashboard, told) as client:
            for path in ("/lapse/", "/lapse/login"):
                await client.get(path)
            await client.post("/lapse/login", data={"token": "wrong"}, headers=own)
            await client.get("/lapse/api/stats", headers=WRONG)
            await client.get("/lapse/", headers={"cookie": "lapse_operator=1.x.y"})
            assert told == []
            await client.post("/lapse/login", data={"token": TOKEN}, headers=own)
            assert told == ["/lapse/login"]
            assert (await client.get("/lapse/sessions")).status_code == 200
            assert (await client.get("/lapse/api/stats", headers=RIGHT)).status_code == 200
        assert told == ["/lapse/login", "/lapse/sessions", "/lapse/api/stats"]

    dashboard.do(ask())
