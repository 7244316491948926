"""Routes and roles: who gets at what, what each act does, and that it is recorded."""

import json
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from operators_server import TOKEN, operated, query
from pydantic import SecretStr

import prefixed
from lapse import LapseSessionService, Settings, mount
from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.overview.store import OverviewStore
from lapse.sweep.rules import Brake, BrakeReason
from parts import store_with_parts
from served import Served

BEARER = {"Authorization": f"Bearer {TOKEN}"}
OPERATOR = {"X-Principal": "operator olga"}
KEY = "app=shop&user=ann&id=nobody"
PAGES = ["/", "/live", "/sessions", f"/session?{KEY}", f"/session/expire?{KEY}", "/sweep", "/brake"]
PAGES += ["/retention", "/retention/confirm", f"/hold?{KEY}", f"/hold/release?{KEY}"]
PAGES += ["/acts", "/acts.csv", "/acts.json", "/help", "/no/such/page"]
CHANGES = [
    f"/session/{action}?{KEY}" for action in ("resurrect", "restore", "extend", "expire", "delete")
]
CHANGES += ["/sweep", "/brake", "/logout", "/bulk"]
CHANGES += ["/retention/confirm", "/hold", f"/hold/release?{KEY}"]
API = [
    "/stats",
    "/sessions",
    f"/session?{KEY}",
    "/sweep",
    "/acts",
    f"/export?{KEY}",
    "/retention",
    "/holds",
]
API_CHANGES = [path for path in CHANGES if path == "/sweep" or path.startswith("/session/")]
API_CHANGES += ["/sweep/confirm", "/retention/confirm?digest=x"]
API_CHANGES += [f"/holds?{KEY}&reason=case", f"/holds/release?{KEY}"]
UNKNOWN = {"detail": "Not Found"}


def nothing_here(answer):
    return (answer.status_code, answer.json()) == (404, UNKNOWN)


def all_routes(app):
    """Return every route of operators, with each of its methods, filled in."""
    app.openapi()  # loads them
    for route in iter_route_contexts(app.routes):
        if route.path.startswith("/lapse/") and route.path != "/lapse/client.js":
            path = route.path.replace("{path:path}", "no/such/page")
            path = path.format(release="x", name="operators.css", action="expire")
            yield from ((method, f"{path}?{KEY}") for method in sorted(route.methods))


def test_the_tables_of_this_module_name_every_route(dashboard):
    named = {
        path.partition("?")[0] for path in [*PAGES, *CHANGES, "/login", "/static/x/operators.css"]
    }
    named |= {f"/api{path.partition('?')[0]}" for path in [*API, *API_CHANGES]}
    found = {path.partition("?")[0] for _, path in all_routes(dashboard.served.app)}
    filled = re.sub(
        r"/session/(resurrect|restore|extend|delete)", "/session/expire", "\n".join(named)
    )
    assert {f"/lapse{path}" for path in filled.split("\n")} == found


@pytest.mark.parametrize("path", PAGES)
def test_a_page_redirects_to_the_log_in_and_answers_other_principals_with_404(dashboard, path):
    client = dashboard.served.client
    answer = client.get(f"/lapse{path}")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(f"{prefixed.prefix}/lapse/login?then=%2Flapse%2F")
    assert client.get(f"/lapse{path}", headers=OPERATOR).status_code in {200, 404}
    for headers in ({"X-Principal": "user ann"}, {"X-Principal": "service pay"}):
        assert nothing_here(client.get(f"/lapse{path}", headers=headers))
    forged = {"Cookie": "lapse_operator=WyJvcGVyYXRvciIsIngiXQ.aSJnYQ.forged"}
    assert client.get(f"/lapse{path}", headers=forged).status_code == 303


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_by_page_needs_a_log_in_a_form_token_and_the_same_origin(dashboard, path):
    client, form_token = dashboard.logged_in()
    _, of_another_log_in = dashboard.logged_in("bob")
    own, form = dashboard.own_origin(), {"form_token": form_token}
    address = f"/lapse{path}"
    assert nothing_here(dashboard.client().post(address, data=form, headers=own))
    for data, headers in (
        ({}, own),
        ({"form_token": of_another_log_in}, own),
        ({"form_token": form_token + "x"}, own),
        (form, {"Origin": "https://evil.example"}),
        (form, {"Origin": "null"}),
        (form, {}),  # who says nothing counts as foreign
        (form, own | {"Sec-Fetch-Site": "same-site"}),
        (form, own | {"Sec-Fetch-Site": "cross-site"}),
    ):
        answer = client.post(address, data=data, headers=headers)
        assert answer.status_code == 403, (data, headers)
    assert client.post(address, data=form, headers=own).status_code in {200, 303, 400, 404, 409}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", path) for path in API] + [("POST", path) for path in API_CHANGES]
)
def test_the_api_answers_the_token_and_operators_only(dashboard, method, path):
    logged_in, _ = dashboard.logged_in()
    asked = (method, f"/lapse/api{path}")
    for headers in (
        {},
        {"Authorization": f"Basic {TOKEN}"},
        {"X-Principal": "user ann"},
        {"X-Principal": "user ann", **BEARER},
        {"X-Principal": "service pay"},
    ):
        assert nothing_here(dashboard.served.client.request(*asked, headers=headers)), headers
    # A cookie is no credential here: a page of others could use it.
    assert nothing_here(logged_in.request(*asked, headers=dashboard.own_origin()))
    for headers in (BEARER, OPERATOR):
        answer = dashboard.served.client.request(*asked, headers=headers)
        assert answer.status_code in {200, 404, 409}
        assert answer.content != b'{"detail":"Not Found"}'
    if method == "POST":
        foreign = BEARER | {"Origin": "https://evil.example"}
        assert dashboard.served.client.request(*asked, headers=foreign).status_code == 403


def test_without_a_token_every_route_of_the_dashboard_answers_404(tmp_path):
    app = FastAPI()
    service = LapseSessionService(store_with_parts(f"sqlite:///{tmp_path}/lapse.db"))
    mount(app, service, apps=["app"])
    with Served(app) as served:
        for method, path in all_routes(app):
            for headers in ({}, BEARER):
                answer = served.client.request(method, path, headers=headers)
                assert nothing_here(answer), (method, path)


def test_with_a_port_of_its_own_the_dashboard_is_not_on_the_main_port(tmp_path):
    with operated(f"sqlite:///{tmp_path}/lapse.db", admin_port=1) as found:
        for method, path in all_routes(found.served.app):
            answer = found.served.client.request(method, path, headers=BEARER)
            assert nothing_here(answer), (method, path)


def test_the_pages_load_nothing_from_other_origins_and_cannot_be_framed(dashboard):
    client, _ = dashboard.logged_in()
    page = client.get("/lapse/")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Cache-Control"] == "no-store"
    assert not re.search(r"<style|style=|<script>|onclick=|https?://", page.text)
    for file in re.findall(r'(?:href|src)="(/lapse/static/[^"]+)"', page.text):
        assert dashboard.client().get(file).status_code == 200
    assert dashboard.client().get("/lapse/static/x/operators.md").status_code == 404


# What is done.


@pytest.mark.parametrize("dashboard", ["sqlite", "postgres"], indirect=True)
def test_every_act_on_a_session_works_by_page_and_by_api(dashboard):
    client, form_token = dashboard.logged_in()
    form, own = {"form_token": form_token}, dashboard.own_origin()

    def by_page(action, key):
        asked = client.get(f"/lapse/session/{action}?{query(key)}")
        assert (asked.status_code, 'method="post"' in asked.text) == (200, True)
        done = client.post(f"/lapse/session/{action}?{query(key)}", data=form, headers=own)
        assert done.status_code == 303, done.text
        assert dashboard.newest_act().by == "operator:ann"
        return client.get(done.headers["Location"].removeprefix(prefixed.prefix))

    def by_api(action, key):
        path = f"/lapse/api/session/{action}?{query(key)}"
        done = dashboard.served.client.post(path, headers=BEARER)
        assert done.status_code == 200, done.text
        assert dashboard.newest_act().by == "operator"
        return done

    for number, do in enumerate((by_page, by_api)):
        key = dashboard.create(f"s{number}/ä?&", ago=timedelta(minutes=10))
        before = dashboard.do(dashboard.store.lifecycle(key)).expires_at
        do("extend", key)
        assert dashboard.do(dashboard.store.lifecycle(key)).expires_at > before
        assert dashboard.newest_act().action == "extended"
        do("expire", key)
        assert (dashboard.status(key), dashboard.newest_act().action) == ("expired", "expired")
        do("resurrect", key)
        assert (dashboard.status(key), dashboard.newest_act().action) == ("waiting", "resurrected")
        told = do("delete", key)
        assert (dashboard.status(key), dashboard.newest_act().action) == (None, "deleted")
        assert "deleted" in told.text
        assert client.get(f"/lapse/session?{query(key)}").status_code == 404

    used = dashboard.use("kept")
    refused = client.post(f"/lapse/session/expire?{query(used)}", data=form, headers=own)
    assert (refused.status_code, "does not allow" in refused.text) == (409, True)
    path = f"/lapse/api/session/expire?{query(used)}"
    assert dashboard.served.client.post(path, headers=BEARER).status_code == 409
    assert dashboard.status(used) == "used"

    page = client.get(f"/lapse/session?{query(used)}")
    assert "hello" not in page.text  # what its message says
    document = dashboard.served.client.get(f"/lapse/api/session?{query(used)}", headers=OPERATOR)
    assert [step["title"] for step in document.json()["timeline"]][:2] == [
        "Created",
        "First message",
    ]


@pytest.mark.parametrize("dashboard", ["sqlite", "postgres"], indirect=True)
def test_the_overview_the_list_and_the_sweep_page_show_their_figures(dashboard):
    client, form_token = dashboard.logged_in()
    api = dashboard.served.client
    own = dashboard.own_origin()
    for number in range(60):
        dashboard.create(f"many-{number:02}", app="crowd", user="bea")
    due = dashboard.create("due", app="crowd", ago=timedelta(minutes=31))

    page = client.get("/lapse/").text
    assert "A session is overdue by" in page
    assert 'href="#why-overdue"' in page
    assert 'id="why-overdue"' in page
    assert "somewhere" in page
    stats = api.get("/lapse/api/stats", headers=BEARER).json()
    (crowd,) = [app for app in stats["apps"] if app["appName"] == "crowd"]
    assert (crowd["sessions"]["waiting"], crowd["changes"]["created"]) == (61, 61)
    told = {verdict["name"]: verdict["isWell"] for verdict in stats["verdicts"]}
    assert told["overdue"] is False

    seen, path = [], "/lapse/sessions?app=crowd&user=bea&prefix=many-"
    while path:
        page = client.get(path).text
        seen += re.findall(r'class="id mono"[^>]*>([^<]+)<', page)
        following = re.search(r'href="([^"]+)" rel="next"', page)
        path = following and following[1].replace("&amp;", "&").removeprefix(prefixed.prefix)
    assert sorted(seen) == [f"many-{number:02}" for number in range(60)]
    found = api.get("/lapse/api/sessions?app=crowd&prefix=due&size=1", headers=BEARER).json()
    assert [session["status"] for session in found["sessions"]] == ["expired"]
    assert client.get("/lapse/sessions?after=nonsense").status_code == 400
    assert client.get("/lapse/sessions?status=nonsense").status_code == 400

    dry = api.get("/lapse/api/sweep", headers=BEARER).json()
    assert (dry["expire"], dashboard.do(dashboard.store.lifecycle(due)).expired_at is not None) == (
        1,
        True,
    )
    assert api.get("/lapse/api/sweep", headers=BEARER).json() == dry
    swept = client.post("/lapse/sweep", data={"form_token": form_token}, headers=own)
    assert "Swept: 1 expired, 0 purged, 0 kept." in swept.text
    act = dashboard.newest_act()
    assert (act.by, act.action, act.detail["expired"]) == ("operator:ann", "swept", 1)
    done = api.post("/lapse/api/sweep", headers=BEARER).json()
    assert done == {"expired": 0, "purged": 0, "kept": 0, "ended": True}


def test_a_brake_is_shown_and_can_be_released(dashboard):
    client, form_token = dashboard.logged_in()
    now = datetime.now(UTC).replace(microsecond=0)

    def brake(since):
        until = since + timedelta(hours=1)
        assert dashboard.do(
            dashboard.store.set_brake(Brake(BrakeReason.CLOCK, since, until, jump=until - since))
        )

    brake(now)
    assert "A brake holds back every purge" in client.get("/lapse/").text
    page = client.get("/lapse/brake").text
    since = re.search(r'name="since" value="([^"]+)"', page)[1].replace("&#43;", "+")
    stale = {"form_token": form_token, "since": "2020-01-01T00:00:00+00:00"}
    client.post("/lapse/brake", data=stale, headers=dashboard.own_origin())
    assert dashboard.do(dashboard.store.brake()) is not None
    form = {"form_token": form_token, "since": since}
    client.post("/lapse/brake", data=form, headers=dashboard.own_origin())
    assert dashboard.do(dashboard.store.brake()) is None
    assert (dashboard.newest_act().by, dashboard.newest_act().action) == (
        "operator:ann",
        "confirmed",
    )
    assert "No brake is set" in client.get("/lapse/brake").text

    brake(now + timedelta(seconds=1))
    confirm = "/lapse/api/sweep/confirm"
    assert dashboard.served.client.post(confirm, headers=BEARER).json() == {"released": True}
    assert dashboard.served.client.post(confirm, headers=BEARER).json() == {"released": False}


def test_acts_are_shown_and_exported(dashboard):
    client, _ = dashboard.logged_in('=HYPERLINK("x")')
    key = dashboard.expired("exported", user="ann")
    for action in ("resurrect", "expire"):
        path = f"/lapse/api/session/{action}?{query(key)}"
        dashboard.served.client.post(path, headers={"X-Principal": "operator =1+1"})
    assert "resurrected" in client.get("/lapse/acts").text
    lines = client.get("/lapse/acts.csv").text.splitlines()
    columns = ("number", "at", "by", "action", "appName", "session", "sessionDigest", "detail")
    assert lines[0] == ",".join(f'"{column}"' for column in columns)
    assert f'"\'=1+1","expired","shop","exported","{key.digest}",' in lines[1]
    exported = [json.loads(line) for line in client.get("/lapse/acts.json").text.splitlines()]
    assert [act["action"] for act in exported[:2]] == ["expired", "resurrected"]
    assert len(exported) == len(lines) - 1
    asked = dashboard.served.client.get("/lapse/api/acts?newest=1", headers=BEARER).json()
    assert (asked["acts"][0]["by"], asked["next"]) == ("=1+1", asked["acts"][0]["number"])


def test_the_filter_proposes_the_largest_apps_and_takes_any_other(dashboard):
    """Seen to fail with a choice of all apps."""
    for number in range(110):
        dashboard.create(f"small-{number}", app=f"app-{number:03}")
    for number in range(2):
        dashboard.create(f"large-{number}", app="the-largest")
    client, _ = dashboard.logged_in()
    page = client.get("/lapse/sessions?app=app-109").text
    proposed = re.findall(r'<option value="([^"]+)">', page)
    assert len(proposed) == 100
    assert "the-largest" in proposed
    assert 'name="app" value="app-109"' in page
    assert "small-109" in page


def test_characters_that_cannot_be_seen_are_shown_as_their_escapes(dashboard):
    """Such a key can be of stock ADK's. Seen to fail with the text as it is."""
    key = SessionKey("shop", "ann\u202e\u200b", "order\u2066-77")
    dashboard.create(key.session_id, user=key.user_id)
    dashboard.do(dashboard.store.expire(key, by="olga\u202e"))
    client, _ = dashboard.logged_in()
    escaped = (r"ann\u202e\u200b", r"order\u2066-77", r"olga\u202e")
    pages = {
        f"/lapse/sessions?user={quote(key.user_id)}": (True, True, False),
        f"/lapse/session?{query(key)}": (True, True, True),
        f"/lapse/session/delete?{query(key)}": (True, True, False),
        "/lapse/acts": (False, False, True),
        "/lapse/acts.csv": (False, False, True),
        "/lapse/acts.json": (False, False, True),
    }
    for path, shown in pages.items():
        page = client.get(path).text
        assert tuple(text in page for text in escaped) == shown, path
        # The fields of the filter hold what was asked for; nothing else does.
        page = re.sub(r'<input [^>]*name="[^>]*>', "", page)
        assert not re.search("[\u202e\u200b\u2066]", page), path
    again = client.get(f"/lapse/sessions?user={quote(key.user_id)}").text
    assert f'name="user" value="{key.user_id}"' in again


def test_the_page_says_so_while_the_store_does_not_answer(dashboard, monkeypatch):
    async def down(*_, **__):
        raise StoreUnavailableError("it is down")

    client, _ = dashboard.logged_in()
    monkeypatch.setattr(OverviewStore, "overview", down)
    page = client.get("/lapse/")
    assert (page.status_code, "The store does not answer" in page.text) == (503, True)
    assert client.get("/lapse/sessions").status_code == 503
    assert dashboard.served.client.get("/lapse/api/stats", headers=BEARER).status_code == 503


def test_ids_and_names_from_outside_are_escaped_on_the_page(dashboard):
    nasty = SessionKey("shop", '"><img src=x onerror=alert(1)>', "<script>alert(1)</script>")
    dashboard.create(nasty.session_id, user=nasty.user_id)
    client, _ = dashboard.logged_in("<b>ann</b>")
    for page in ("/lapse/sessions?prefix=%3Cscript", f"/lapse/session?{query(nasty)}"):
        text = client.get(page).text
        assert "&lt;script&gt;" in text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "<b>ann" not in text


@pytest.mark.at_root
def test_a_page_behind_a_prefix_has_links_that_work(tmp_path):
    outer, inner = FastAPI(), FastAPI()
    service = LapseSessionService(store_with_parts(f"sqlite:///{tmp_path}/lapse.db"))
    mount(inner, service, Settings(admin_token=SecretStr(TOKEN)), apps=["app"])
    outer.mount("/inner", inner)
    outer.router.lifespan_context = lambda _: inner.router.lifespan_context(inner)
    with Served(outer) as served, httpx.Client(base_url=served.url, trust_env=False) as client:
        asked = client.get("/inner/lapse/acts", follow_redirects=True)
        assert asked.url.path == "/inner/lapse/login"
        assert 'action="/inner/lapse/login"' in asked.text
        then = re.search(r'name="then" value="([^"]+)"', asked.text)[1]
        sent = {"token": TOKEN, "then": then}
        answer = client.post("/inner/lapse/login", data=sent, headers={"Origin": served.origin})
        assert answer.headers["Location"] == "/inner/lapse/acts"
        assert client.get(answer.headers["Location"]).status_code == 200
