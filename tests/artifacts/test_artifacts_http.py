"""ADK's artifact routes: whose sessions they serve, and how much a user may upload."""

from __future__ import annotations

import httpx
import pytest

from lapse import Lapse, Settings
from lapse.artifacts.uploads import MIB
from lapse.core.keys import SessionKey
from serving import USER, copied_agents

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

SESSIONS = f"/apps/parrot/users/{USER}/sessions"
NOT_FOUND = {"detail": "Session not found"}


@pytest.fixture
async def client(tmp_path):
    """A client of ADK's server on the test agents, with a quota of one MiB."""
    agents = copied_agents(tmp_path / "agents")
    settings = Settings(artifacts_per_user=1, ttl="1440")
    lapse = Lapse(f"sqlite:///{tmp_path}/lapse.db", settings)
    app = lapse.app(agents)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        client.lapse, client.agents = lapse, agents
        yield client


def body(name="a.txt", size=10):
    return {"filename": name, "artifact": {"text": "x" * size}}


async def upload(client, session="s1", name="a.txt", size=10):
    return await client.post(f"{SESSIONS}/{session}/artifacts", json=body(name, size))


async def every_route(client, session):
    """Return the answer of each route of a session's artifacts."""
    base = f"{SESSIONS}/{session}/artifacts"
    gets = ("", "/a.txt", "/a.txt/versions", "/a.txt/versions/0")
    metadata = ("/a.txt/versions/metadata", "/a.txt/versions/0/metadata")
    return [
        await client.post(base, json=body()),
        *[await client.get(base + path) for path in (*gets, *metadata)],
        await client.delete(f"{base}/a.txt"),
    ]


async def test_only_a_session_that_lives_has_artifacts(client):
    """Seen to fail without `guard_artifacts`: files of sessions that never were, for good.

    Also without `_check_lives`, and with one that takes the session whose id has no white space.
    """
    for session in ("never", "expired", "deleted", " s1 "):
        if session.isalpha() and session != "never":
            await client.post(SESSIONS, json={"sessionId": session})
            assert (await upload(client, session)).status_code == 200
        if session == "expired":
            await client.lapse.sessions.expire(SessionKey("parrot", USER, session))
        if session == "deleted":
            await client.delete(f"{SESSIONS}/{session}")
        if session == " s1 ":
            await client.post(SESSIONS, json={"sessionId": "s1"})
        for answer in await every_route(client, session):
            assert (answer.status_code, answer.json()) == (404, NOT_FOUND), (session, answer.url)
    assert [answer.status_code for answer in await every_route(client, "s1")] == [200] * 8
    assert not list(client.agents.rglob("sessions/never")), "nothing is made for it"


async def test_an_upload_beyond_the_quota_is_refused_until_something_is_deleted(client):
    """Seen to fail with uploads that are not counted, and with deletions that are not."""
    for session in ("s1", "s2"):
        await client.post(SESSIONS, json={"sessionId": session})
    half = MIB // 2 - 4096
    assert (await upload(client, "s1", "a.txt", half)).status_code == 200
    assert (await upload(client, "s2", "user:b.txt", half)).status_code == 200
    refused = await upload(client, "s2", "c.txt", half)
    assert refused.status_code == 413
    assert "at most 1 MiB" in refused.json()["detail"]
    assert (await client.get(f"{SESSIONS}/s2/artifacts")).json() == ["user:b.txt"]
    assert (await client.delete(f"{SESSIONS}/s1/artifacts/user:b.txt")).status_code == 200
    assert (await upload(client, "s2", "c.txt", half)).status_code == 200


async def test_an_upload_that_adk_refuses_counts_for_nothing(client):
    await client.post(SESSIONS, json={"sessionId": "s1"})
    for _ in range(3):
        answer = await upload(client, "s1", "/rooted", MIB // 2)
        assert answer.status_code == 400, answer.text
    assert (await upload(client, "s1", "a.txt", MIB // 2)).status_code == 200


async def test_bytes_and_metadata_count_and_not_text_alone(client):
    """Seen to fail with a `_size` that counts bytes as one value."""
    await client.post(SESSIONS, json={"sessionId": "s1"})
    large = "x" * MIB
    for artifact in (
        {"artifact": {"inlineData": {"data": large + large, "mimeType": "image/png"}}},
        {"artifact": {"text": "x"}, "customMetadata": {"large": large}},
        {"artifact": {"fileData": {"fileUri": f"https://x.test/{large}", "mimeType": "a/b"}}},
    ):
        answer = await client.post(
            f"{SESSIONS}/s1/artifacts", json={"filename": "a.txt"} | artifact
        )
        assert answer.status_code == 413, answer.text


@pytest.mark.parametrize("used", [False, True])
async def test_a_session_made_again_under_its_id_has_no_artifacts_but_the_users(client, used):
    """Seen to fail when the end of a used session is not noted, and with a creation that waits."""
    await client.post(SESSIONS, json={"sessionId": "s1"})
    await upload(client, "s1", "a.txt")
    await upload(client, "s1", "user:b.txt")
    if used:
        run = {"appName": "parrot", "userId": USER, "sessionId": "s1"}
        message = {"newMessage": {"role": "user", "parts": [{"text": "hello"}]}}
        assert (await client.post("/run", json=run | message)).status_code == 200
    assert (await client.delete(f"{SESSIONS}/s1")).status_code == 200
    await client.post(SESSIONS, json={"sessionId": "s1"})
    assert (await client.get(f"{SESSIONS}/s1/artifacts")).json() == ["user:b.txt"]


def test_the_quota_is_on_where_users_are_authenticated(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Settings().artifact_bytes_per_user is None
    assert Settings(auth="jwt").artifact_bytes_per_user == 256 * MIB
    assert Settings(auth="jwt", artifacts_per_user=0).artifact_bytes_per_user is None
    assert Settings(artifacts_per_user=3).artifact_bytes_per_user == 3 * MIB
