"""Every page and every route of operators on sessions as users make them."""

from __future__ import annotations

import html
import io
import json
import re
import zipfile
from urllib.parse import quote_plus

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from lived_sessions import (
    APP,
    ELSEWHERE,
    METADATA,
    OPERATOR,
    STATUSES,
    TOKEN,
    USER,
    key_of,
    lived_on,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # what ADK calls itself
]

RECORDED = {name: status for name, status in STATUSES.items() if "stock-adk" not in name}


@pytest.fixture(scope="module", params=ELSEWHERE)
def life(request, tmp_path_factory):
    with lived_on(request.param, tmp_path_factory.mktemp("lived")) as found:
        yield found


@pytest.fixture(scope="module")
def operator(life):
    """A browser of an operator who is logged in."""
    with httpx.Client(base_url=life.served.url, timeout=30, trust_env=False) as client:
        own = {"Origin": life.served.url}
        answer = client.post("/lapse/login", data={"token": TOKEN, "name": "olga"}, headers=own)
        assert answer.status_code == 303
        yield client


def page(client, path):
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return html.unescape(answer.text)


@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_the_page_of_each_session_tells_its_status_metadata_and_owner(life, operator, name, status):
    """Seen to fail with the record's metadata written as it is read."""
    shown = page(operator, f"/lapse/session?{life.query(name)}")
    for told in (status, key_of(name).user_id, name[:8]):
        assert told in shown
    if life.record(name)["metadata"].get("page"):
        assert "/café?q=ü&r=%2F" in shown
        assert '"🙂 <b>"' in shown
    told = life.client.get(f"/lapse/api/session?{life.query(name)}", headers=OPERATOR)
    assert told.status_code == 200, told.text
    record = {field: told.json()[field] for field in life.record(name)}
    assert record | {"serverTime": ""} == life.record(name) | {"serverTime": ""}
    assert told.json()["timeline"]


@pytest.mark.parametrize("name", STATUSES)
def test_each_act_that_the_page_of_a_session_offers_has_a_page_that_asks(life, operator, name):
    shown = page(operator, f"/lapse/session?{life.query(name)}")
    offered = set(re.findall(r"/lapse/session/(\w+)\?", shown))
    assert offered, "a session can at least be deleted"
    for action in offered:
        assert name in page(operator, f"/lapse/session/{action}?{life.query(name)}"), action


@pytest.mark.parametrize("status", ["", "waiting", "used", "expired"])
def test_the_lists_have_every_session_that_lapse_has_a_record_of(life, operator, status):
    expected = {
        name
        for name, of_one in RECORDED.items()
        if status in {"", of_one} and key_of(name)[:2] == (APP, USER)
    }
    query = httpx.QueryParams({"app": APP, "user": USER} | ({"status": status} if status else {}))
    shown = page(operator, f"/lapse/sessions?{query}")
    assert all(name in shown for name in expected)
    told = life.client.get(f"/lapse/api/sessions?{query}", headers=OPERATOR).json()
    assert {one["sessionId"] for one in told["sessions"]} == expected


@pytest.mark.parametrize("path", ["/", "/?range=5w", "/live", "/sweep", "/brake", "/acts", "/help"])
def test_every_other_page_is_drawn(operator, path):
    page(operator, f"/lapse{path}")


def test_the_acts_are_exported_in_each_format(life, operator):
    """A page shows fifty acts, and other tests act, too, so it is asked for the one that counts."""
    told = life.client.get("/lapse/api/acts?newest=500", headers=OPERATOR).json()["acts"]
    numbers = {(act["action"], act["session"]): act["number"] for act in told}
    before = numbers["expired", "was-expi"] + 1
    for path in (f"/lapse/acts?before={before}", "/lapse/acts.csv", "/lapse/acts.json"):
        assert "was-expi" in page(operator, path)


def form_of(client, path):
    """Return the hidden fields of the form that changes something on a page."""
    return dict(re.findall(r'name="(form_token|since)" value="([^"]*)"', page(client, path)))


def sent(client, life, path, form):
    """Send a form; return the page that the browser shows then."""
    own = {"Origin": life.served.origin}
    answer = client.post(path, data=form, headers=own, follow_redirects=True)
    assert answer.status_code == 200, (path, answer.text)
    return html.unescape(answer.text)


def test_the_forms_of_a_session_do_what_they_say(life, operator):
    life.create("made-for-forms", options={"metadata": METADATA})
    query = life.query("made-for-forms")
    for action, status in (("extend", "waiting"), ("expire", "expired"), ("resurrect", "waiting")):
        path = f"/lapse/session/{action}?{query}"
        shown = sent(operator, life, path, form_of(operator, path))
        assert "made-for-forms" in shown
        assert life.record("made-for-forms")["status"] == status
        told = life.client.get(f"/lapse/api/session?{query}", headers=OPERATOR).json()
        assert {"expire": "expired", "resurrect": "resurrected"}.get(action, "") in {
            "", told["acts"][0]["action"],
        }  # fmt: skip
    path = f"/lapse/session/delete?{query}"
    assert "The session is deleted." in sent(operator, life, path, form_of(operator, path))
    assert operator.get(f"/lapse/session?{query}").status_code == 404


def test_a_dry_run_on_a_users_sessions_names_each_and_changes_none(life, operator):
    form = form_of(operator, "/lapse/sessions") | {"matching": "yes", "app": APP, "user": USER}
    shown = sent(operator, life, "/lapse/bulk", form | {"action": "expire"})
    for name, status in RECORDED.items():
        if key_of(name)[:2] == (APP, USER):
            assert name in shown
            assert f"id={quote_plus(name)}" in shown or status != "waiting"
    assert life.record("waits")["status"] == "waiting"


@pytest.mark.parametrize("name", ["waits", "greeted"])
def test_each_act_of_the_api_answers_with_the_record(life, name):
    for action, status in (("extend", "waiting"), ("expire", "expired"), ("resurrect", "waiting")):
        path = f"/lapse/api/session/{action}?{life.query(name)}"
        answer = life.client.post(path, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == status
        assert METADATA.items() <= answer.json()["metadata"].items()


RETENTION = (
    ("GET", "/retention", {}),
    ("GET", "/retention/confirm", {}),
    ("GET", "/hold?user=nobody", {}),
    ("GET", "/hold/release?user=nobody", {}),
    ("POST", "/hold", {"user": "nobody", "reason": "case"}),
    ("POST", "/hold/release?user=nobody", {}),
)


@pytest.mark.parametrize(("method", "path", "form"), RETENTION)
def test_the_pages_of_retention_are_drawn_or_say_why_not(life, operator, method, path, form):
    """With conversations elsewhere there is no retention, and each page says so."""
    form = form and {**form, **form_of(operator, "/lapse/sweep")}
    form = form or form_of(operator, "/lapse/sweep")
    asked = {"follow_redirects": True, "headers": {"Origin": life.served.origin}}
    if method == "POST":
        answer = operator.post(f"/lapse{path}", data=form, **asked)
    else:
        answer = operator.get(f"/lapse{path}")
    assert answer.status_code == (501 if life.elsewhere else 200), answer.text
    assert ("Not with this service" in answer.text) == bool(life.elsewhere)
    confirmed = operator.post("/lapse/retention/confirm", data=form | {"digest": "x"}, **asked)
    assert confirmed.status_code == (501 if life.elsewhere else 409)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/retention"),
        ("GET", "/holds?user=nobody"),
        ("POST", "/holds?user=nobody&reason=case"),
        ("POST", "/holds/release?user=nobody"),
        ("POST", "/retention/confirm?digest=x"),
    ],
)
def test_the_api_of_retention_answers_where_there_is_retention(life, method, path):
    answer = life.client.request(method, f"/lapse/api{path}", headers=OPERATOR)
    possible = 409 if "confirm" in path else 200
    assert answer.status_code == (501 if life.elsewhere else possible), answer.text


@pytest.mark.parametrize("name", RECORDED)
def test_each_session_can_be_put_on_hold_and_says_so(life, operator, name):
    if life.elsewhere:
        return
    path = f"/lapse/session?{life.query(name)}"
    asked = {"app": key_of(name).app_name, "user": key_of(name).user_id, "id": name}
    form = form_of(operator, "/lapse/sweep") | asked | {"reason": "case <7>"}
    assert "case <7>" in sent(operator, life, "/lapse/hold", form)
    assert "case <7>" in page(operator, "/lapse/retention")
    assert life.record(name)["onHold"] is True
    form = form_of(operator, "/lapse/sweep")
    released = sent(operator, life, f"/lapse/hold/release?{life.query(name)}", form)
    assert "The hold is released." in released
    assert "case <7>" not in page(operator, path).partition("Timeline")[0]


def test_a_users_sessions_are_exported_where_they_are_in_the_store(life):
    answer = life.client.get("/lapse/api/export", params={"user": USER}, headers=OPERATOR)
    if life.elsewhere:
        assert (answer.status_code, "not with this service" in answer.text) == (501, True)
        return
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        lines = archive.read("lobby.jsonl").splitlines()
    found = {one["sessionId"] for one in map(json.loads, lines)}
    assert found >= {name for name in RECORDED if key_of(name)[:2] == (APP, USER)}


def test_the_statistics_count_what_is_there(life):
    told = life.client.get("/lapse/api/stats", headers=OPERATOR).json()
    of_app = {one["appName"]: one for one in told["apps"]}
    assert of_app["greeter"]["agentOnly"] == 1
    assert of_app["shop"]["sessions"]["used"] == 40


def test_a_brake_that_the_sweep_has_set_is_shown_and_released(life, operator):
    """It is the last that a test does with the brake: the backlog is purged."""
    told = life.client.get("/lapse/api/sweep", headers=OPERATOR).json()
    assert (told["brake"]["reason"], told["purge"]) == ("share", 5)
    assert "A brake holds back every purge" in page(operator, "/lapse/")
    form = form_of(operator, "/lapse/brake")
    assert "since" in form
    sent(operator, life, "/lapse/brake", {**form, "since": html.unescape(form["since"])})
    assert life.client.get("/lapse/api/sweep", headers=OPERATOR).json()["brake"] is None
    assert "Swept: " in sent(operator, life, "/lapse/sweep", form_of(operator, "/lapse/sweep"))
    confirmed = life.client.post("/lapse/api/sweep/confirm", headers=OPERATOR)
    assert confirmed.json() == {"released": False}
    assert life.client.post("/lapse/api/sweep", headers=OPERATOR).json()["ended"] is True


def test_no_route_of_operators_is_forgotten_here(life):
    """Every page and route stands in this module, so that a new one is tried on such sessions."""
    life.served.app.openapi()  # loads them
    routes = {
        (method, route.path)
        for route in iter_route_contexts(life.served.app.routes)
        if getattr(route.endpoint, "__module__", "").startswith("lapse.dashboard")
        for method in route.methods - {"HEAD"}
    }
    assert routes == TRIED


TRIED = {
    *(("GET", f"/lapse{path}") for path in ("/", "/live", "/sweep", "/brake", "/acts", "/help")),
    *(("GET", f"/lapse/{name}") for name in ("sessions", "session", "session/{action}")),
    *(("GET", f"/lapse/acts.{kind}") for kind in ("csv", "json")),
    *(("POST", f"/lapse/{name}") for name in ("session/{action}", "sweep", "brake", "login")),
    ("POST", "/lapse/bulk"),
    *(("GET", f"/lapse/api/{name}") for name in ("stats", "sessions", "session", "sweep", "acts")),
    ("GET", "/lapse/api/export"),
    *(("POST", f"/lapse/api/{name}") for name in ("session/{action}", "sweep", "sweep/confirm")),
    *((method, f"/lapse{path.partition('?')[0]}") for method, path, _ in RETENTION),
    *(("GET", f"/lapse/api/{name}") for name in ("retention", "holds")),
    *(("POST", f"/lapse/api/{name}") for name in ("retention/confirm", "holds", "holds/release")),
    ("POST", "/lapse/retention/confirm"),
    # These show no session: `test_dashboard_login.py` and `test_dashboard_routes.py` try them.
    ("GET", "/lapse/login"), ("POST", "/lapse/logout"), ("GET", "/lapse/static/{release}/{name}"),
    ("GET", "/lapse/{path:path}"),
}  # fmt: skip
