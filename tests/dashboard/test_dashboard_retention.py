"""The operators' pages and API of retention: policy, confirmation, holds, archived sessions."""

import html
import re
from datetime import UTC, datetime, timedelta

import pytest
from operators_server import FORM, TOKEN, operated, query

import prefixed
from backends import BACKENDS
from lapse.core.keys import SessionKey
from lapse.retention.policy import parse_policy
from lived_sessions import created, said

BEARER = {"Authorization": f"Bearer {TOKEN}"}
DAY = timedelta(days=1)
TEXT = '[default]\nidle = "90d"\narchive = "365d"\n[apps.shop]\nage = "10d"\nper_user = 7\n'
OTHER = TEXT.replace("10d", "11d")
ARCHIVING = parse_policy('[default]\nage = "1s"\narchive = "300d"\n')


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(request, tmp_path_factory):
    """A server with a policy; each test uses sessions of its own."""
    (backend,) = [backend for backend in BACKENDS if backend.name == request.param]
    folder = tmp_path_factory.mktemp("retention")
    file = folder / "policy.toml"
    file.write_text(TEXT)
    with backend.empty(folder) as url, operated(url, retention_file=file) as found:
        found.file = file
        yield found


@pytest.fixture
def policy(server):
    """The policy file as it is by default, not confirmed."""
    server.file.write_text(TEXT)
    nobody = parse_policy('[default]\nidle = "9999d"\n')
    server.do(server.store.confirm_retention(nobody, by="nobody"))
    return server.file


def api(server, method, path, **asked):
    return server.served.client.request(
        method, f"/lapse/api{path}", headers=BEARER, params=asked or None
    )


def page(client, path):
    answer = client.get(f"/lapse{path}")
    assert answer.status_code == 200, answer.text
    return html.unescape(answer.text)


def send(server, client, path, **form):
    """Send a form of a page; return the answer."""
    form["form_token"] = FORM.search(client.get("/lapse/sweep").text)[1]
    return client.post(
        f"/lapse{path}", data=form, headers=server.own_origin(), follow_redirects=True
    )


def used(server, name, *, app="shop", ago=5 * DAY):
    """Have a session whose first message came so long ago."""
    key, past = SessionKey(app, "ann", name), server.store.at(datetime.now(UTC) - ago)
    server.do(created(past, key, ttl=timedelta(minutes=30)))
    server.do(said(past, key))
    return key


def archived(server, name):
    key = used(server, name)
    done = server.do(server.store.archive_sessions([key], ARCHIVING))
    assert done.value.archived == 1
    return key


def test_the_api_confirms_exactly_the_policy_that_was_shown(server, policy):
    """Seen to fail with a confirmation of whatever the file says."""
    shown = api(server, "GET", "/retention").json()
    assert (shown["inForce"], shown["problems"]) == (False, [])
    assert shown["policy"]["limitsOfApps"][0]["ageSeconds"] == 10 * 86400
    digest = shown["policy"]["digest"]
    policy.write_text(OTHER)
    refused = api(server, "POST", "/retention/confirm", digest=digest)
    assert refused.status_code == 409
    assert "changed" in refused.json()["detail"]
    assert not api(server, "GET", "/retention").json()["inForce"]
    policy.write_text(f"# as it was\n{TEXT}")
    done = api(server, "POST", "/retention/confirm", digest=digest).json()
    assert (done["inForce"], done["changed"], done["confirmedBy"]) == (True, True, "operator")
    again = api(server, "POST", "/retention/confirm", digest=digest).json()
    assert (again["inForce"], again["changed"]) == (True, False)
    assert server.newest_act().action == "retention-confirmed"


def test_a_policy_with_faults_cannot_be_confirmed(server, policy):
    digest = api(server, "GET", "/retention").json()["policy"]["digest"]
    policy.write_text("[default]\nidle = 3\nage = 4\n")
    shown = api(server, "GET", "/retention").json()
    assert (shown["policy"], len(shown["problems"]), shown["preview"]) == (None, 2, None)
    assert api(server, "POST", "/retention/confirm", digest=digest).status_code == 409
    client, _ = server.logged_in()
    told = page(client, "/retention")
    assert "The policy has 2 faults" in told
    assert "line 2: idle must be a text" in told
    assert "There is nothing to confirm" in page(client, "/retention/confirm")
    assert "The retention policy has 2 faults" in page(client, "/")


def test_the_page_confirms_the_policy_after_a_dry_run(server, policy):
    """Seen to fail with a form without the digest."""
    used(server, "due-by-age", ago=11 * DAY)
    client, _ = server.logged_in("olga")
    assert "This policy is not confirmed" in page(client, "/retention")
    shown = page(client, "/retention/confirm")
    digest = api(server, "GET", "/retention").json()["policy"]["digest"]
    assert f'name="digest" value="{digest}"' in shown
    assert "due now" in shown
    policy.write_text(OTHER)
    refused = send(server, client, "/retention/confirm", digest=digest)
    assert refused.status_code == 409
    assert "The policy has changed since it was shown" in html.unescape(refused.text)
    policy.write_text(TEXT)
    done = send(server, client, "/retention/confirm", digest=digest)
    assert "The policy is confirmed." in done.text
    assert "The policy is in force: confirmed by <b>operator:olga</b>" in done.text
    assert "was confirmed already" in send(server, client, "/retention/confirm", digest=digest).text
    act = server.newest_act()
    assert (act.by, act.action) == ("operator:olga", "retention-confirmed")


def test_what_would_be_taken_is_told_by_app_and_week(server, policy):
    for number in range(3):
        used(server, f"falls-due-{number}", app="counted", ago=(80 + number) * DAY)
    policy.write_text('[default]\nage = "85d"\n')
    told = api(server, "GET", "/retention").json()["preview"]
    (one,) = [app for app in told["apps"] if app["appName"] == "counted"]
    assert (one["sessions"], one["dueNow"], one["dueByWeek"][0]) == (3, 0, 3)
    assert one["dueNowByAge"] == [0] * 5


def test_an_operator_holds_and_releases_a_session(server, policy):
    key = server.use("is-held")
    client, _ = server.logged_in("olga")
    assert f"/lapse/hold?{query(key)}" in page(client, f"/session?{query(key)}")
    assert "Put this session on hold?" in page(client, f"/hold?{query(key)}")
    form = {"app": key.app_name, "user": key.user_id, "id": key.session_id}
    assert send(server, client, "/hold", **form, reason="  ").status_code == 400
    done = html.unescape(send(server, client, "/hold", **form, reason="case <7>").text)
    assert "It is on hold" in done
    assert "by operator:olga: case <7>" in done
    assert 'data-act="delete"' not in done
    assert server.newest_act().action == "held"
    assert "case <7>" in page(client, "/retention")
    assert "was on hold already" in send(server, client, "/hold", **form, reason="again").text
    refused = send(server, client, f"/session/delete?{query(key)}")
    assert (refused.status_code, "on hold" in refused.text) == (409, True)
    assert "case <7>" in page(client, f"/hold/release?{query(key)}")
    done = send(server, client, f"/hold/release?{query(key)}")
    assert "The hold is released." in done.text
    assert server.newest_act().action == "released"
    assert "It is not on hold" in page(client, f"/hold/release?{query(key)}")
    assert server.do(server.store.holds(user_id=key.user_id)) == []


def test_the_api_holds_a_session_or_a_user_and_releases_exactly_that(server, policy):
    """Seen to fail with a hold on an unknown session."""
    key = server.use("held-by-api", user="hugo")
    asked = {"user": "hugo", "app": "shop", "id": "held-by-api"}
    assert api(server, "POST", "/holds", user="hugo").status_code == 422
    assert api(server, "POST", "/holds", user="hugo", reason=" ").status_code == 400
    assert api(server, "POST", "/holds", user="hugo", id="x", reason="a").status_code == 404
    unknown = api(server, "POST", "/holds", **asked | {"id": "none"}, reason="a")
    assert unknown.status_code == 404
    for scope in (asked, {"user": "hugo"}):
        for changed in (True, False):
            done = api(server, "POST", "/holds", **scope, reason="case 7")
            assert done.json() == {"changed": changed}
    found = api(server, "GET", "/holds", user="hugo").json()["holds"]
    assert [(one["appName"], one["sessionId"]) for one in found] == [
        ("shop", "held-by-api"),
        (None, None),
    ]
    assert api(server, "GET", "/holds", user="nobody").json() == {"holds": []}
    assert server.do(server.store.lifecycle(key)).on_hold
    assert api(server, "POST", "/holds/release", user="hugo").json() == {"changed": True}
    assert api(server, "POST", "/holds/release", user="hugo").json() == {"changed": False}
    assert server.do(server.store.lifecycle(key)).on_hold
    assert api(server, "POST", "/holds/release", **asked).json() == {"changed": True}
    assert not server.do(server.store.lifecycle(key)).on_hold


@pytest.mark.parametrize("way", ["page", "api"])
def test_an_archived_session_is_listed_and_restored(server, policy, way):
    key = archived(server, f"archived-{way}")
    client, _ = server.logged_in("olga")
    listed = page(client, "/sessions?status=archived")
    assert key.session_id in listed
    assert key.session_id in page(client, "/retention")
    shown = page(client, f"/session?{query(key)}")
    assert "Archived" in shown
    assert f"/lapse/session/restore?{query(key)}" in shown
    if way == "page":
        assert "from the archive?" in page(client, f"/session/restore?{query(key)}")
        done = send(server, client, f"/session/restore?{query(key)}")
        assert "The session is restored." in done.text
    else:
        done = api(server, "POST", f"/session/restore?{query(key)}")
        assert done.json()["status"] == "used"
    assert server.status(key) == "used"
    assert server.newest_act().action == "restored"
    found = api(server, "GET", "/sessions", status="archived").json()["sessions"]
    assert key.session_id not in {one["sessionId"] for one in found}


def test_pinned_sessions_are_listed_and_say_so(server, policy):
    key = archived(server, "pinned-and-archived")
    server.do(server.store.pin(key))
    client, _ = server.logged_in()
    assert "pinned-and-archived" in page(client, "/retention")
    shown = page(client, f"/session?{query(key)}")
    assert "Pinned by its owner" in shown
    assert "Not as long as it is pinned" in shown
    assert api(server, "GET", "/retention").json()["pinned"] >= 1


def test_a_brake_and_a_switched_off_cleanup_are_told(server, policy):
    client, _ = server.logged_in()
    assert "brake" not in page(client, "/retention")
    now = server.do(server.store.overview(since=DAY)).now
    server.do(server.store.brake_purge(now, 5000))
    told = page(client, "/retention")
    assert "A brake holds back archives and purges." in told
    server.do(server.store.release_brake(since=now))


def test_without_a_policy_nothing_is_offered(tmp_path):
    with operated(f"sqlite:///{tmp_path}/lapse.db") as server:
        client, _ = server.logged_in()
        told = page(client, "/retention")
        assert "Retention is off" in told
        assert "Review and confirm" not in told
        shown = api(server, "GET", "/retention").json()
        assert (shown["policy"], shown["inForce"]) == (None, False)
        assert api(server, "POST", "/retention/confirm", digest="x").status_code == 409
        server.do(server.store.put_on_hold(SessionKey("", "u", ""), reason="case", by="op"))
        assert "all sessions of u" in page(client, "/retention")


def test_the_page_of_much_is_at_most_60_kilobytes_and_tells_what_it_leaves_out(tmp_path):
    """Seen to fail with a row for each hold and each app."""
    file = tmp_path / "policy.toml"
    apps = [f"app-{number:02}-{'a' * 30}" for number in range(60)]
    file.write_text(TEXT + "".join(f'[apps."{app}"]\nidle = "9d"\n' for app in apps))
    with operated(f"sqlite:///{tmp_path}/lapse.db", retention_file=file) as server:
        for number, app in enumerate(apps):
            key = used(server, f"{number:03}-{'0123456789' * 3}", app=app)
            if number % 2:
                server.do(server.store.archive_sessions([key], ARCHIVING))
                server.do(server.store.pin(key))
            hold = server.store.put_on_hold(key, reason="why " * 124, by="op")
            server.do(hold)
        client, _ = server.logged_in()
        for path in ("/retention", "/retention/confirm"):
            answer = client.get(f"/lapse{path}")
            files = re.findall(r'(?:href|src)="([^"]*/lapse/static/[^"]+)"', answer.text)
            sizes = [
                int(client.get(one.removeprefix(prefixed.prefix)).headers["Content-Length"])
                for one in set(files)
            ]
            assert len(answer.content) + sum(sizes) <= 60 * 1024, path
            assert "10 smaller apps" in answer.text
            assert "41 more apps" in answer.text
        assert "The oldest 20 of 60" in page(client, "/retention")
