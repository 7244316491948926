"""Artifacts of ended sessions are deleted at least once."""

import json
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from google.adk.artifacts.file_artifact_service import FileArtifactService
from google.adk.artifacts.in_memory_artifact_service import InMemoryArtifactService
from google.genai.types import Part

from backends import create, key
from lapse.adk.service import LapseSessionService
from lapse.artifacts.sweeper import ArtifactSweeper
from lapse.core.clock import utc_now
from lapse.core.documents import StateDelta
from lapse.core.lifecycle import Rules
from parts import store_with_parts
from serving import copied_agents, eventually, run, serving

ANN = {"app_name": "app", "user_id": "ann"}


class Flaky(InMemoryArtifactService):
    """Fails at its first deletions."""

    failures: int = 2

    async def delete_artifact(self, **arguments):
        if self.failures:
            self.failures -= 1
            raise ConnectionError("canary-session-1 is not reachable")
        await super().delete_artifact(**arguments)


class Strict(InMemoryArtifactService):
    """Refuses ids that it cannot make a path of."""

    async def list_artifact_keys(self, *, app_name, user_id, session_id=None):
        raise ValueError(f"{user_id} must have no slash")


@pytest.fixture
async def store():
    store = store_with_parts("sqlite:///:memory:", Rules(artifacts=True))
    yield store
    await store.close()


async def save(service, session, filename="photo.png"):
    part = Part.from_bytes(data=b"png", mime_type="image/png")
    await service.save_artifact(**ANN, session_id=session, filename=filename, artifact=part)


async def names(service, session):
    return await service.list_artifact_keys(**ANN, session_id=session)


def later(store, hours):
    """Return the store at a later time, when failed deletions are due again."""
    return store.at(utc_now() + timedelta(hours=hours))


async def test_artifacts_of_an_ended_session_are_deleted_and_those_of_the_user_stay(store):
    service = InMemoryArtifactService()
    for name in ("s1", "s2"):
        await create(store, name)
        await save(service, name)
        await save(service, name, "user:portrait.png")
    await store.delete(key("s1"))
    assert await ArtifactSweeper(store, service).step() > timedelta(0)
    assert await names(service, "s1") == ["user:portrait.png"]
    assert await names(service, "s2") == ["photo.png", "user:portrait.png"]
    assert not await later(store, 2).take_outbox(10), "it is settled"


async def test_what_an_artifact_service_cannot_keep_is_settled_at_once(store, caplog):
    """It holds nothing, either. Seen to fail if `own_artifacts` refuses ids with a slash: a warning
    for each ended session of such a user.
    """
    url = key("s")._replace(user_id="https://idp.test/7")
    await store.create(url, state=StateDelta(), ttl=timedelta(minutes=30), metadata={})
    assert not await ArtifactSweeper(store, Strict()).holds_any(url)
    await store.delete(url)
    await ArtifactSweeper(store, Strict()).step()
    assert not await later(store, 2).take_outbox(10)
    assert not caplog.records


async def test_a_failed_deletion_is_tried_again_and_logged_without_an_id(store, caplog):
    service = Flaky()
    await create(store, "canary-session-1")
    await save(service, "canary-session-1")
    await store.delete(key("canary-session-1"))
    for hours in (0, 2):
        await ArtifactSweeper(later(store, hours), service).step()
        assert await names(service, "canary-session-1") == ["photo.png"]
    await ArtifactSweeper(later(store, 4), service).step()
    assert await names(service, "canary-session-1") == []
    assert "canary-s… were not deleted (attempt 2)" in caplog.text
    assert "canary-session-1" not in caplog.text


async def test_a_new_session_of_the_same_id_keeps_its_own_artifacts_alone(store):
    """Seen to fail when the sweeper leaves alone whatever a session lives under the id of."""
    service = InMemoryArtifactService()
    await create(store, "s1", now=None)
    await save(service, "s1", "old.png")
    await store.delete(key("s1"))
    await create(store, "s1", now=None)
    await save(service, "s1", "new.png")
    await save(service, "s1", "user:portrait.png")
    await ArtifactSweeper(store, service).step()
    assert await names(service, "s1") == ["new.png", "user:portrait.png"]


async def created_again(store, artifacts):
    """Return the artifacts of a session that is created right after one of its id was deleted."""
    service = LapseSessionService(store)
    service.artifacts = ArtifactSweeper(store, artifacts)
    for _ in range(2):
        await service.create_session(**ANN, session_id="canary-session-1")
        found = await names(artifacts, "canary-session-1")
        await save(artifacts, "canary-session-1")
        await service.delete_session(**ANN, session_id="canary-session-1")
    return found


async def test_a_session_created_again_never_has_the_artifacts_of_the_earlier_one(store):
    """Seen to fail when a creation leaves the deletion to the next step of the sweeper."""
    assert await created_again(store, InMemoryArtifactService()) == []


async def test_a_creation_succeeds_if_the_earlier_artifacts_cannot_be_deleted(store, caplog):
    assert await created_again(store, Flaky()) == ["photo.png"]
    assert "canary-s… were not deleted (attempt 1)" in caplog.text
    await ArtifactSweeper(later(store, 2), artifacts := Flaky(failures=0)).step()
    assert await names(artifacts, "canary-session-1") == []


async def test_artifacts_saved_after_the_end_of_the_session_stay(store):
    service = InMemoryArtifactService()
    await create(store, "s1")
    await store.delete(key("s1"))
    await save(service, "s1")
    await ArtifactSweeper(store, service).step()
    assert await names(service, "s1") == ["photo.png"]


async def test_artifacts_of_apps_that_another_server_serves_are_left(store):
    service = InMemoryArtifactService()
    await create(store, "s1")
    await save(service, "s1")
    await store.delete(key("s1"))
    await ArtifactSweeper(store, service, serves=lambda app: app == "mine").step()
    assert await names(service, "s1") == ["photo.png"]
    assert len(await later(store, 2).take_outbox(10)) == 1


async def test_the_report_counts_artifacts_without_a_session(tmp_path):
    url = f"sqlite:///{tmp_path}/lapse.db"
    store = store_with_parts(url)
    await create(store, "there")
    await store.close()
    service = FileArtifactService(root_dir=tmp_path / "agents" / "app" / ".adk" / "artifacts")
    for name in ("there", "gone", "gone"):
        await save(service, name)
    await save(service, "gone", "papers/passport.png")
    await save(service, "gone", "user:portrait.png")
    told = run("report", url, "--json", "--artifacts", str(tmp_path / "agents"))
    assert json.loads(told.stdout)["orphanedArtifacts"] == {"sessions": 1, "artifacts": 2}
    wrong = run("report", url, "--artifacts", str(tmp_path / "nowhere"))
    assert wrong.returncode == 1
    assert "there is no such folder" in wrong.stderr


def upload(server, session):
    answer = server.client.post(
        server.path(session) + "/artifacts",
        json={
            "filename": "photo.png",
            "artifact": {"inlineData": {"data": "cG5n", "mimeType": "image/png"}},
        },
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.long
def test_a_real_server_deletes_the_artifacts_that_lapse_sweep_has_left(tmp_path):
    agents = tmp_path / "agents"
    copied_agents(agents)

    def files():
        return {path.parents[3].name for path in agents.rglob("artifacts/photo.png/versions/*")}

    with serving(tmp_path, "agents") as server:
        kept, left, deleted = (server.create(sessionId=name) for name in ("kept", "left", "gone"))
        for session in (kept, left, deleted):
            upload(server, session)
        assert server.run(kept).is_success
        assert server.client.delete(server.path(deleted)).is_success
        eventually(lambda: len(files()) == 2)
    with closing(sqlite3.connect(tmp_path / "lapse.db")) as connection, connection:
        connection.execute("UPDATE lapse_lobby SET expires_at = 0 WHERE session_id = 'left'")
    swept = run("sweep", "--store", f"sqlite:///{tmp_path}/lapse.db", LAPSE_RESTORE_HOURS="0")
    assert swept.stdout == "expired 1, purged 1, kept 0\n"
    assert len(files()) == 2
    with serving(tmp_path, "agents"):
        eventually(lambda: len(files()) == 1)
    assert files() == {path.parents[3].name for path in agents.rglob("*/photo.png/versions/*")}
