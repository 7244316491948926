"""Every page and every route of operators on sessions as users make them."""

from __future__ import annotations

import html
import re

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from backends import BACKENDS
from lived import APP, METADATA, OPERATOR, STATUSES, TOKEN, USER, key_of, lived

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # what ADK calls itself
]

RECORDED = {name: status for name, status in STATUSES.items() if "stock-adk" not in name}


@pytest.fixture(
    scope="module",
    params=[backend for backend in BACKENDS if backend.shared],
    ids=lambda one: one.name,
)
def life(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lived")
    with request.param.empty(folder) as url, lived(url, folder) as found:
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


@pytest.mark.parametrize("path", ["/", "/live", "/sweep", "/brake", "/acts"])
def test_every_other_page_is_drawn(operator, path):
    page(operator, f"/lapse{path}")


def test_the_acts_are_exported_in_each_format(life, operator):
    for path in ("/lapse/acts", "/lapse/acts.csv", "/lapse/acts.json"):
        assert "was-expi" in page(operator, path)
    told = life.client.get("/lapse/api/acts", headers=OPERATOR).json()["acts"]
    assert ("expired", "was-expi") in {(act["action"], act["session"]) for act in told}


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


@pytest.mark.parametrize("name", ["waits", "greeted"])
def test_each_act_of_the_api_answers_with_the_record(life, name):
    for action, status in (("extend", "waiting"), ("expire", "expired"), ("resurrect", "waiting")):
        path = f"/lapse/api/session/{action}?{life.query(name)}"
        answer = life.client.post(path, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == status
        assert METADATA.items() <= answer.json()["metadata"].items()


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
    routes = {
        (method, route.path)
        for route in iter_route_contexts(life.served.app.routes)
        if getattr(route.endpoint, "__module__", "").startswith("lapse.dashboard")
        for method in route.methods - {"HEAD"}
    }
    assert routes == TRIED


TRIED = {
    *(("GET", f"/lapse{path}") for path in ("/", "/live", "/sweep", "/brake", "/acts")),
    *(("GET", f"/lapse/{name}") for name in ("sessions", "session", "session/{action}")),
    *(("GET", f"/lapse/acts.{kind}") for kind in ("csv", "json")),
    *(("POST", f"/lapse/{name}") for name in ("session/{action}", "sweep", "brake", "login")),
    *(("GET", f"/lapse/api/{name}") for name in ("stats", "sessions", "session", "sweep", "acts")),
    *(("POST", f"/lapse/api/{name}") for name in ("session/{action}", "sweep", "sweep/confirm")),
    # These show no session: `test_dashboard_login.py` and `test_dashboard_routes.py` try them.
    ("GET", "/lapse/login"), ("POST", "/lapse/logout"), ("GET", "/lapse/static/{release}/{name}"),
}  # fmt: skip
