"""Users erase what is kept of them, over HTTP, where a setting lets them."""

import json
from hashlib import sha256

import pytest

from lapse import Lapse, Settings
from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.erasure.routes import AT_ONCE, Erasures
from served import Served
from serving import AGENTS

UNLIMITED = {
    f"{what}_per_{whom}": 0 for what in ("creates", "waiting") for whom in ("user", "address")
}
HEADER = {
    "auth": "header",
    "auth_header": "X-User",
    "auth_role_header": "X-Groups",
    "auth_proxies": "127.0.0.1",
}
ANN = {"X-User": "ann"}
BOB = {"X-User": "bob"}
EVE = {"X-User": "eve"}
OPERATOR = {"X-User": "olga", "X-Groups": "operator"}


@pytest.fixture(scope="module")
def lapse(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('erasing')}/lapse.db"
    return Lapse(url, Settings(self_erasure=True, **HEADER, **UNLIMITED))


@pytest.fixture(scope="module")
def server(lapse, tmp_path_factory):
    with Served(lapse.app(AGENTS, port=0)) as running:
        yield running


def path(user, app="parrot"):
    return f"/apps/{app}/users/{user}/erasure"


def talk(server, headers):
    """Create a session with a message and an artifact, and one that waits; return the first's."""
    user = headers["X-User"]
    sessions = f"/apps/parrot/users/{user}/sessions"
    created = [server.client.post(sessions, json={}, headers=headers).json() for _ in range(2)]
    used = created[0]["id"]
    body = {
        "appName": "parrot",
        "userId": user,
        "sessionId": used,
        "newMessage": {"role": "user", "parts": [{"text": "hello"}]},
    }
    assert server.client.post("/run", json=body, headers=headers).status_code == 200
    artifact = {"filename": "a.txt", "artifact": {"text": "words"}}
    saved = server.client.post(f"{sessions}/{used}/artifacts", json=artifact, headers=headers)
    assert saved.status_code == 200, saved.text
    return f"{sessions}/{used}"


def test_a_user_sees_what_is_kept_and_erases_it_and_nobody_elses(server):
    """Seen to fail where the deletions are done in the user's name, and recorded."""
    own, others = talk(server, EVE), talk(server, BOB)
    found = server.client.get(path("eve"), headers=EVE).json()["found"]
    assert (found["sessions"], found["artifacts"]) == (2, 1)
    assert server.client.get(own, headers=EVE).status_code == 200
    answer = server.client.post(path("eve"), json={"confirm": "eve"}, headers=EVE)
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert receipt["isWhole"]
    assert (receipt["erased"]["sessions"], receipt["erased"]["artifacts"]) == (2, 1)
    assert receipt["remains"] == ["the deleted bytes in the files of the database"]
    assert server.client.get(own, headers=EVE).status_code == 404
    assert set(server.client.get(path("eve"), headers=EVE).json()["found"].values()) == {0}
    assert server.client.get(others, headers=BOB).status_code == 200
    artifacts = server.client.get(f"{others}/artifacts", headers=BOB).json()
    assert artifacts == ["a.txt"]
    acts = server.client.get("/lapse/api/acts", headers=OPERATOR).json()["acts"]
    assert (acts[0]["by"], acts[0]["action"]) == ("self-service", "erased")
    assert acts[0]["detail"]["receipt"] == sha256(f"{receipt['key']} eve".encode()).hexdigest()
    assert "deleted" not in {act["action"] for act in acts}
    assert '"eve"' not in json.dumps(acts)


def test_without_the_users_id_once_more_nothing_is_erased(server):
    own = talk(server, ANN)
    for body in ({}, {"confirm": "bob"}, {"confirm": "ann", "more": 1}):
        answer = server.client.post(path("ann"), json=body, headers=ANN)
        assert answer.status_code in {400, 422}, answer.text
    assert server.client.get(own, headers=ANN).status_code == 200


def test_another_user_gets_404_and_an_operator_may_do_it(server):
    own = talk(server, ANN)
    for method, body in (("GET", None), ("POST", {"confirm": "ann"})):
        answer = server.client.request(method, path("ann"), json=body, headers=BOB)
        assert answer.status_code == 404
    assert server.client.get(own, headers=ANN).status_code == 200
    answer = server.client.post(path("ann"), json={"confirm": "ann"}, headers=OPERATOR)
    assert answer.status_code == 200
    acts = server.client.get("/lapse/api/acts", headers=OPERATOR).json()["acts"]
    assert (acts[0]["by"], acts[0]["action"]) == ("olga", "erased")


async def test_only_some_erasures_go_on_at_a_time(lapse, server):
    erasures, key = Erasures(lapse.sessions, None), SessionKey("parrot", "ann", "")
    begun = [erasures.one_of(key) for _ in range(AT_ONCE)]
    for one in begun:
        await one.__aenter__()
    with pytest.raises(Exception, match="erasures are going on") as refused:
        async with erasures.one_of(key):
            pass
    assert refused.value.status_code == 503
    for one in reversed(begun):
        await one.__aexit__(None, None, None)
    async with erasures.one_of(key):
        pass


def test_the_routes_are_not_there_unless_the_setting_says_so(tmp_path):
    lapse = Lapse(f"sqlite:///{tmp_path}/lapse.db", Settings(**HEADER, **UNLIMITED))
    with Served(lapse.app(AGENTS, port=0)) as running:
        assert running.client.get(path("ann"), headers=ANN).status_code == 404


def test_the_setting_needs_authentication(tmp_path):
    """Seen to fail without the check."""
    lapse = Lapse(f"sqlite:///{tmp_path}/lapse.db", Settings(self_erasure=True))
    with pytest.raises(InvalidValueError, match="anybody could erase anybody"):
        lapse.app(AGENTS, port=0)
