"""The commands of `docs/export.md`, run as printed, and its table of files."""

import io
import json
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from google.adk.artifacts.file_artifact_service import FileArtifactService
from google.genai import types

from backends import T0
from lapse.export.artifacts import Artifacts
from lapse.export.exporting import Export
from lapse.export.places import PLACES
from lapse.export.sinks import Folder
from page_commands import run_commands
from parts import store_with_parts
from serving import AGENTS, serving
from users_data import fill

PAGE = (Path(__file__).parents[3] / "docs" / "export.md").read_text("utf-8")


def script(title):
    (found,) = re.findall(rf"```sh\n# {title}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.mark.long
async def test_the_commands_export_and_import(tmp_path):
    store = store_with_parts(f"sqlite:///{tmp_path}/lapse.db")
    keys = await fill(store, "ann", "mark")
    await store.close()
    for title in ("export", "import"):
        done = run_commands(script(title), tmp_path)
        assert done.returncode == 0, done.stderr
    other = store_with_parts(f"sqlite:///{tmp_path}/other.db")
    assert len((await other.at(T0).read(keys[0])).events) == 3
    await other.close()


@pytest.mark.long
@pytest.mark.at_root
def test_the_archive_comes_over_http(tmp_path):
    token = "operators-token-0123456789"
    with serving(tmp_path, str(AGENTS), LAPSE_ADMIN_TOKEN=token) as server:
        server.run(server.create(), "hello")
        command = script("over HTTP").replace("http://127.0.0.1:8000", server.url)
        command = command.replace("user=ann", "user=ada")
        done = run_commands(command, tmp_path, LAPSE_ADMIN_TOKEN=token)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(io.BytesIO((tmp_path / "ann.zip").read_bytes())) as archive:
        assert b"hello" in archive.read("events.jsonl")


async def test_the_page_names_every_file_and_every_field(tmp_path):
    """Seen to fail without `usedBy` on the page."""
    store = store_with_parts("sqlite:///:memory:")
    keys = await fill(store, "ann", "mark")
    service = FileArtifactService(tmp_path / "kept")
    await service.save_artifact(
        **keys[0]._asdict(), filename="a.txt", artifact=types.Part(text="a")
    )
    async with store.snapshot() as snapshot:
        at = datetime(2030, 1, 1, tzinfo=UTC)
        kept = Artifacts(service)
        export = Export(snapshot, "ann", app_name=None, artifacts=kept, at=at, lapse="1")
        async for _ in export.write(Folder(tmp_path / "out")):
            pass
    await store.close()
    rows = re.findall(r"^\| `([\w.-]+)` \|[^|]*\| (.*) \|$", PAGE, re.MULTILINE)
    stated = {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    found = {"manifest.json": set(manifest) | set(manifest["files"][0])}
    for path in (tmp_path / "out").glob("*.jsonl"):
        found[path.name] = set(json.loads(path.read_text().splitlines()[0]))
    assert {place.file for place in PLACES} < set(found)
    assert stated == found
