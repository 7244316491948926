"""Reuse never gives a new chat a session that holds a file, however the file came there."""

from __future__ import annotations

import httpx
import pytest
from google.genai.types import Part

from backends import T0, TTL, create, key
from lapse import Lapse, Settings
from lapse.artifacts.uploads import Uploads
from lapse.core.keys import SessionKey
from serving import USER, copied_agents

SESSIONS = f"/apps/parrot/users/{USER}/sessions"
FILE = {"filename": "f.txt", "artifact": {"text": "secret"}}


async def reused(store):
    found = await store.at(T0).reuse_waiting(key("new"), ttl=TTL, metadata={})
    return found.value and found.value.session_id


@pytest.mark.parametrize("most", [None, 10**6], ids=["no quota", "quota"])
async def test_a_session_with_an_upload_is_not_reused_until_that_is_deleted(store, most):
    """Seen to fail without `holds_upload`, and without `note_upload` where there is no quota."""
    uploads = Uploads(store.at(T0), most)
    await create(store)
    async with uploads.saving(key(), "f.txt", 1):
        assert await reused(store) is None, "while it is being uploaded"
    async with uploads.saving(key(), "g.txt", 1):
        pass
    async with uploads.deleting(key(), "f.txt"):
        pass
    assert await reused(store) is None
    async with uploads.deleting(key(), "g.txt"):
        pass
    assert await reused(store) == "s1"


@pytest.mark.parametrize("most", [None, 10**6], ids=["no quota", "quota"])
async def test_an_upload_that_failed_or_belongs_to_the_user_holds_no_session_back(store, most):
    uploads = Uploads(store.at(T0), most)
    await create(store)
    with pytest.raises(ConnectionError):
        async with uploads.saving(key(), "f.txt", 1):
            raise ConnectionError
    async with uploads.saving(key(), "user:f.txt", 1):
        pass
    async with uploads.saving(key("s1", user="bob"), "f.txt", 1):
        pass
    assert await reused(store) == "s1"


async def test_an_older_session_without_an_upload_is_reused_instead(store):
    await create(store, "older")
    await create(store, "newer")
    async with Uploads(store.at(T0), None).saving(key("newer"), "f.txt", 1):
        pass
    assert await reused(store) == "older"


@pytest.fixture(params=[None, 1], ids=["no quota", "quota"])
async def client(request, tmp_path):
    """A client of ADK's server that reuses sessions; `artifacts` is its artifact service."""
    agents = copied_agents(tmp_path / "agents")
    settings = Settings(reuse_waiting="on", artifacts_per_user=request.param)
    lapse = Lapse(f"sqlite:///{tmp_path}/lapse.db", settings)
    app = lapse.app(agents)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        client.lapse = lapse
        client.artifacts = lapse.sessions.artifacts._artifacts
        yield client


async def new_chat(client):
    answer = await client.post(SESSIONS)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


@pytest.mark.filterwarnings("ignore")  # what ADK calls itself
async def test_a_new_chat_never_has_the_file_of_the_one_before(client):
    first = await new_chat(client)
    assert await new_chat(client) == first
    assert (await client.post(f"{SESSIONS}/{first}/artifacts", json=FILE)).status_code == 200
    second = await new_chat(client)
    assert second != first
    assert (await client.get(f"{SESSIONS}/{second}/artifacts")).json() == []
    assert (await client.get(f"{SESSIONS}/{first}/artifacts")).json() == ["f.txt"]
    assert await new_chat(client) == second
    assert client.lapse.sessions.admission.reused == 2


@pytest.mark.filterwarnings("ignore")  # what ADK calls itself
async def test_what_the_artifact_service_has_saved_counts_like_an_upload(client):
    """Seen to fail without `holds_artifacts`."""
    older, newer = await new_chat(client), SessionKey("parrot", USER, "newer")
    await client.lapse.sessions.create_session(**newer._asdict(), reuse=False)
    for where in (newer, newer._replace(session_id=older)):
        names = {**where._asdict(), "filename": "own.txt"}
        await client.artifacts.save_artifact(**names, artifact=Part(text="secret"))
    third = await new_chat(client)
    assert third not in {older, "newer"}
    assert await new_chat(client) == third


@pytest.mark.filterwarnings("ignore")  # what ADK calls itself
async def test_where_the_artifact_service_fails_a_new_session_is_made(client, monkeypatch, caplog):
    """Seen to fail with the fault taken for "it has none"."""
    first = await new_chat(client)

    async def broken(**_):
        raise ConnectionError("bucket gone")

    monkeypatch.setattr(client.artifacts, "list_artifact_keys", broken)
    assert await new_chat(client) != first
    assert "did not tell whether it has artifacts: ConnectionError" in caplog.text
