"""Users whose ids are URLs, as the subjects of tokens and SPIFFE ids are: `%2F` in a path."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import httpx
import pytest
from tokens import AUDIENCE, ISSUER, Issuer, bearer

from lapse import Lapse, Settings
from lapse.core.keys import SessionKey
from lapse.store.sessions import Sessions
from served import Served
from serving import AGENTS

USERS = ["https://idp.test/users/7", "spiffe://corp.test/ns/chat/sa/bot", "a/b%2Fc", "ünal/王"]


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


@pytest.fixture(scope="module", params=["jwt", "header"])
def guarded(request, tmp_path_factory, issuer):
    """A served application, and the function that makes a client for one of its users."""
    by = {
        "jwt": {
            "LAPSE_AUTH": "jwt",
            "LAPSE_JWT_KEY": issuer.public_pem,
            "LAPSE_JWT_ALGORITHMS": "ES256",
            "LAPSE_JWT_ISSUER": ISSUER,
            "LAPSE_JWT_AUDIENCE": AUDIENCE,
        },
        "header": {
            "LAPSE_AUTH": "header",
            "LAPSE_AUTH_HEADER": "X-User",
            "LAPSE_AUTH_PROXIES": "127.0.0.1",
        },
    }[request.param]
    url = f"sqlite:///{tmp_path_factory.mktemp('slashes')}/lapse.db"
    lapse = Lapse(settings=Settings(LAPSE_STORE_URL=url, **by))
    with Served(lapse.app(AGENTS, port=0)) as served:

        def client_of(user):
            headers = bearer(issuer.token(user)) if request.param == "jwt" else {}
            headers |= {} if request.param == "jwt" else {"X-User": user.encode()}
            return httpx.Client(base_url=served.url, headers=headers, trust_env=False)

        yield served, lapse, client_of


def path_of(user, *rest):
    parts = ["apps", "parrot", "users", user, "sessions", *rest]
    return "/" + "/".join(quote(part, safe="") for part in parts)


@pytest.mark.parametrize("user", USERS)
def test_every_route_of_a_session_finds_its_user(guarded, user):
    """Seen to fail without `keeping_slashes`: 404 everywhere; with a slash refused in names: 401.

    Without `decode_parameters` (ADK's routes) or `decoded` (Lapse's) the user is another: 404.
    """
    served, lapse, client_of = guarded
    with client_of(user) as client:
        created = client.post(path_of(user), json={"state": {"k": 1}})
        assert created.status_code == 200, created.text
        assert created.json()["userId"] == user
        session = created.json()["id"]
        place = path_of(user, session)
        assert session in {one["id"] for one in client.get(path_of(user)).json()}
        told = {"status": "waiting", "lifecycle": "true"}
        listed = client.get(path_of(user), params=told).json()
        assert session in {one["id"] for one in listed if one["lifecycle"]["userId"] == user}
        assert client.get(place).json()["userId"] == user
        record = client.get(f"{place}/lifecycle").json()
        assert (record["userId"], record["status"]) == (user, "waiting")
        assert client.post(f"{place}/lifecycle/extend").status_code == 200
        assert client.patch(f"{place}/lifecycle", json={"metadata": {"a": 1}}).status_code == 200
        assert client.patch(place, json={"stateDelta": {"k": 2}}).json()["state"]["k"] == 2
        with client.stream("GET", f"{place}/lifecycle/events") as stream:
            assert any("event: lifecycle" in line for line in stream.iter_lines())

        work = Sessions(lapse.store).expire(SessionKey("parrot", user, session))
        asyncio.run_coroutine_threadsafe(work, served.loop).result(30)
        assert client.get(place).status_code == 404
        assert client.post(f"{place}/lifecycle/resurrect").status_code == 200

        told = client.post(f"{place}/run", json={"message": "hello"}).json()
        assert told["success"], told
        assert "event: done" in client.get(told["stream"]).text
        assert client.get(f"{place}/run/{told['runId']}").json()["status"] == "done"
        message = {"role": "user", "parts": [{"text": "again"}]}
        ids = {"appName": "parrot", "userId": user, "sessionId": session}
        answer = client.post("/run_sse", json={**ids, "newMessage": message})
        assert "heard: again" in answer.text
        assert client.delete(place).status_code == 200
        assert client.get(f"{place}/lifecycle").status_code == 404


def test_another_users_path_is_not_found(guarded):
    """A part of an id between slashes is no user of its own."""
    _, _, client_of = guarded
    with client_of("https://idp.test/users/7") as seven, client_of("https:") as other:
        session = seven.post(path_of("https://idp.test/users/7"), json={}).json()["id"]
        for user in ("https://idp.test/users/7", "https://idp.test/users/8", "https:"):
            answer = other.get(path_of(user, session))
            assert answer.status_code == 404, user
        assert other.get(path_of("https://idp.test/users/7")).status_code == 404
        assert other.get(path_of("https:")).json() == []


@pytest.mark.filterwarnings("ignore:Please use create_session")
def test_a_session_id_with_a_slash_is_refused_with_the_reason(guarded):
    """Seen to fail without the check in `check_new_key`: 200, and never deleted again."""
    _, _, client_of = guarded
    refused = {"detail": "session id: must not contain a slash"}
    with client_of("ann") as client:
        for answer in (
            client.post(path_of("ann"), json={"sessionId": "a/b"}),
            client.post(path_of("ann", "a/b"), json={}),
            client.post(path_of("ann", "a/b", "run"), json={"message": "hello"}),
        ):
            assert (answer.status_code, answer.json()) == (400, refused)
        assert client.get(path_of("ann")).json() == []
