"""Acts on many, search, error pages and the size of pages."""

import re

import httpx
import pytest
from fastapi import FastAPI
from operators_server import TOKEN, query

import prefixed
from backends import DUE, create
from lapse import LapseSessionService, Settings, mount
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from lapse.dashboard.actions import Action
from lapse.dashboard.bulk import plan_of_query
from lapse.overview.store import Query
from parts import Intercepted, store_with_parts
from served import Served


def test_an_error_page_keeps_the_navigation_and_says_what_to_do(dashboard):
    client, form_token = dashboard.logged_in()
    form = {"form_token": form_token, "action": "nonsense"}
    own = dashboard.own_origin()
    for answer, status in (
        (client.get("/lapse/no/such/page"), 404),
        (client.get("/lapse/session?app=a&user=b&id=c"), 404),
        (client.get("/lapse/sessions?status=nonsense"), 400),
        (client.post("/lapse/bulk", data=form, headers=own), 400),
        (client.post("/lapse/sweep", data={}, headers=own), 403),
    ):
        assert answer.status_code == status
        assert 'aria-label="Pages"' in answer.text, answer.text
        assert "/lapse/help" in answer.text
        assert "operator:ann" in answer.text


def test_a_browser_gets_a_page_and_a_script_the_404_of_an_unknown_path(tmp_path):
    service = LapseSessionService(store_with_parts(f"sqlite:///{tmp_path}/lapse.db"))
    app = FastAPI()
    mount(app, service, Settings(), apps=["app"])
    with Served(app) as served, httpx.Client(base_url=served.url, trust_env=False) as client:
        for path in ("/lapse/", "/lapse/nope", "/lapse/sessions"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
            page = client.get(path, headers={"Accept": "text/html,*/*"})
            assert (page.status_code, page.headers["Content-Type"][:9]) == (404, "text/html")
            assert "Sessions" not in page.text


def bulk(dashboard, client, form_token, keys=(), **fields):
    data = {"form_token": form_token, "key": [query(key) for key in keys], **fields}
    return client.post("/lapse/bulk", data=data, headers=dashboard.own_origin())


@pytest.mark.parametrize("dashboard", ["sqlite", "postgres"], indirect=True)
def test_an_act_on_many_is_a_dry_run_until_it_is_confirmed(dashboard):
    client, form_token = dashboard.logged_in()
    waiting = [dashboard.create(f"bulk-{n}", user="bulk <b>") for n in range(3)]
    used = dashboard.use("bulk-used", user="bulk <b>")
    gone = SessionKey("shop", "bulk <b>", "bulk-gone")
    keys = [*waiting, used, gone]
    dry = bulk(dashboard, client, form_token, keys, action="expire", back="/lapse/sessions?app=x")
    assert (dry.status_code, "Expire now 3 sessions?" in dry.text) == (200, True)
    assert "bulk &lt;b&gt;" in dry.text
    assert [dashboard.status(key) for key in waiting] == ["waiting"] * 3
    matching = bulk(dashboard, client, form_token, action="expire", user="bulk <b>", matching="yes")
    assert re.findall(r'name="key" value="[^"]+id=([^"]+)"', matching.text) == [
        key.session_id for key in waiting
    ]
    done = bulk(
        dashboard,
        client,
        form_token,
        keys,
        action="expire",
        sure="yes",
        back="/lapse/sessions?app=x",
    )
    assert (done.status_code, done.headers["Location"].rpartition("/")[2]) == (
        303, "sessions?app=x&done=expire+3+2",
    )  # fmt: skip
    assert [dashboard.status(key) for key in keys] == ["expired"] * 3 + ["used", None]
    acts = dashboard.do(dashboard.store.acts(newest=3))
    assert {(act.by, act.action) for act in acts} == {("operator:ann", "expired")}
    told = client.get("/lapse/sessions?done=expire+3+2").text
    assert "Expire now: done for 3 sessions, 2 left as they were." in told


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "expire", "matching": "yes"},
        {"action": "expire", "matching": "yes", "status": "nonsense"},
        {"action": "expire", "key": "app=a&user=b"},
        {"action": "expire", "key": ["app=a&user=b&id=c" + str(n) for n in range(501)]},
    ],
)
def test_an_act_on_many_without_bounds_is_refused(dashboard, fields):
    client, form_token = dashboard.logged_in()
    data = {"form_token": form_token, **fields}
    answer = client.post("/lapse/bulk", data=data, headers=dashboard.own_origin())
    assert answer.status_code == 400


def test_a_search_finds_ids_that_begin_so_and_the_user_and_the_app_of_that_name(dashboard):
    for session, app, user in (
        ("needle-1", "shop", "ann"), ("x-1", "needle", "bob"), ("x-2", "shop", "needle"),
        ("y-needle", "shop", "ann"),
    ):  # fmt: skip
        dashboard.create(session, app=app, user=user)
    client, _ = dashboard.logged_in()

    def found(asked):
        return re.findall(
            r'class="id mono"[^>]*>([^<]+)<', client.get(f"/lapse/sessions{asked}").text
        )

    assert set(found("?q=needle")) == {"needle-1", "x-1", "x-2"}
    assert found("?q=needle&sort=id") == ["needle-1", "x-1", "x-2"]
    assert found("?q=needle&sort=id&down=true") == ["x-2", "x-1", "needle-1"]


def test_the_first_load_of_each_page_is_at_most_60_kilobytes(dashboard):
    for number in range(60):
        dashboard.create(f"heavy-{number:02}-{'0123456789' * 3}", app="heavy", user="u" * 30)
    client, _ = dashboard.logged_in()
    for path in ("/lapse/", "/lapse/?range=5w", "/lapse/sessions?app=heavy", "/lapse/help"):
        page = client.get(path)
        found = re.findall(r'(?:href|src)="([^"]*/lapse/static/[^"]+)"', page.text)
        files = {file.removeprefix(prefixed.prefix) for file in found}
        assert len(files) == 3
        size = len(page.content) + sum(
            int(client.get(file).headers["Content-Length"]) for file in files
        )
        assert size <= 60 * 1024, (path, size)


class Overlooked(Intercepted):
    """Notes which operations are done."""

    def __init__(self, database):
        super().__init__(database)
        self.done = []

    async def around(self, name, do):
        self.done.append(name)
        return await super().around(name, do)


async def test_a_plan_for_a_query_reads_the_sessions_alone_by_the_stores_clock(store):
    """Seen to fail with the whole overview for its `now`."""
    await create(store)
    database = Overlooked(store.database.at(DUE))
    plan = await plan_of_query(database, Action.EXTEND, Query())
    assert (plan.fitting, [one.status for one in plan.others]) == ([], [Status.EXPIRED])
    assert database.done == ["find"]


@pytest.mark.parametrize("before", [2**63, -1, 0, "x", "9" * 5000])
@pytest.mark.parametrize("path", ["/lapse/acts", "/lapse/api/acts"])
def test_the_number_of_an_act_is_one_that_a_store_can_hold(dashboard, path, before):
    """Seen to fail with any integer let through: 500."""
    client, _ = dashboard.logged_in("olga")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    answer = client.get(path, params={"before": before}, headers=bearer)
    assert answer.status_code == (422 if "api" in path else 400)
    assert client.get(path, params={"before": 2**63 - 1}, headers=bearer).status_code == 200
