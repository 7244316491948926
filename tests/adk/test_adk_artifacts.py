"""What the artifact routes tell about where artifacts are stored."""

from __future__ import annotations

import httpx
import pytest

from adk_builders import USER
from adk_versions import since_adk
from lapse import Lapse, ServerOptions
from serving import copied_agents

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself


async def canonical_uri(tmp_path, name, **options):
    """Return the URI of an artifact with one version, after every route has answered the same."""
    agents = copied_agents(tmp_path / "agents")
    app = Lapse(f"sqlite:///{tmp_path}/lapse.db").app(agents, **options)
    base = f"/apps/parrot/users/{USER}/sessions/s"
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        await client.post(base, json={})
        body = {"filename": name, "artifact": {"text": "words"}}
        made = await client.post(f"{base}/artifacts", json=body)
        versions = f"{base}/artifacts/{name}/versions"
        one = await client.get(f"{versions}/0/metadata")
        (listed,) = (await client.get(f"{versions}/metadata")).json()
        read = await client.get(f"{base}/artifacts/{name}")
        assert read.json()["text"] == "words"
        assert made.json() == one.json() == listed
        return made.json()["canonicalUri"]


@pytest.mark.parametrize(
    ("name", "place"), [("a/b.txt", "sessions/s/artifacts"), ("user:a.txt", "artifacts")]
)
@since_adk("2.3", "names of artifacts have no slash, and their times move")
async def test_answers_name_an_artifact_by_adks_reference_and_not_by_its_file(
    tmp_path, name, place
):
    """Seen to fail without `_without_files`: a `file:` URI with the agents' folder."""
    uri = await canonical_uri(tmp_path, name)
    assert uri == f"artifact://apps/parrot/users/{USER}/{place}/{name}/versions/0"


async def test_uris_that_are_no_files_stay_as_they_are(tmp_path):
    assert (
        await canonical_uri(
            tmp_path, "a.txt", server=ServerOptions(artifact_service_uri="memory://")
        )
    ).startswith("memory://")
