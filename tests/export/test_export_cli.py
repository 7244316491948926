"""`lapse export` and `lapse import`, run as an operator runs them."""

import json
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest
from google.adk.artifacts.file_artifact_service import FileArtifactService
from google.genai import types

import postgres
from backends import BACKENDS, T0, create, key, message
from lapse.core.keys import user_digest
from parts import store_with_parts
from serving import LAPSE, environment, lapse
from users_data import fill

pytestmark = pytest.mark.long

USER = "zoë o'neil@example.com"


@pytest.fixture
async def folder(tmp_path):
    """A folder whose store has a user's data."""
    store = store_with_parts(f"sqlite:///{tmp_path}/lapse.db")
    await fill(store, USER, "mark")
    await store.close()
    return tmp_path


def acts(folder):
    printed = lapse(folder, "audit", "--json").stdout
    return [json.loads(line) for line in printed.splitlines()]


def test_an_export_is_imported_into_another_store_and_both_are_recorded(folder):
    done = lapse(folder, "export", "--user", USER, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "out/events.jsonl: 6" in done.stdout
    assert "it is not known where they are kept" in done.stderr
    newest = acts(folder)[0]
    assert newest["action"] == "exported"
    assert newest["detail"]["user"] == user_digest(USER)
    done = lapse(folder, "import", "out", "--store", "sqlite:///new.db", "--json")
    assert done.returncode == 0, done.stderr
    assert {"name": "events", "rows": 6} in json.loads(done.stdout)["places"]
    again = lapse(folder, "export", "--user", USER, "--out", "2", "--store", "sqlite:///new.db")
    assert again.returncode == 0, again.stderr
    for path in (folder / "out").glob("*.jsonl"):
        assert path.read_bytes() == (folder / "2" / path.name).read_bytes()
    assert acts(folder)[0]["action"] == "exported"


def test_a_second_import_is_refused_with_the_names_of_what_exists(folder):
    lapse(folder, "export", "--user", USER, "--out", "out")
    done = lapse(folder, "import", "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "exists already: 'app: state of the user', " in done.stderr
    assert "more; an import changes nothing that is there" in done.stderr


def test_a_folder_that_is_not_empty_is_refused_and_a_changed_file_too(folder):
    (folder / "full").mkdir()
    (folder / "full" / "x").write_text("")
    assert "full is not empty" in lapse(folder, "export", "--user", USER, "--out", "full").stderr
    lapse(folder, "export", "--user", USER, "--out", "out")
    (folder / "out" / "events.jsonl").write_text("")
    refused = lapse(folder, "import", "out", "--store", "sqlite:///new.db")
    assert "events.jsonl: is not what was exported: 0 lines" in refused.stderr
    assert not (folder / "new.db").exists()


def test_of_a_user_of_whom_nothing_is_kept_an_empty_export_is_made(folder):
    done = lapse(folder, "export", "--user", "nobody", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert {one["lines"] for one in json.loads(done.stdout)["files"]} == {0}


async def test_artifacts_go_along_or_are_left_out_by_word(folder):
    service = FileArtifactService(folder / "kept")
    await service.save_artifact(
        app_name="app",
        user_id="ann",
        session_id="s1",
        filename="a.txt",
        artifact=types.Part(inline_data=types.Blob(data=b"one", mime_type="text/plain")),
    )
    store = store_with_parts(f"sqlite:///{folder}/lapse.db")
    await create(store, "s1")
    await store.close()
    kept = ["--artifact-service-uri", f"file://{folder}/kept"]
    done = lapse(folder, "export", "--user", "ann", "--out", "out", *kept)
    assert "artifacts.jsonl: 1" in done.stdout, done.stderr
    to = ["import", "out", "--store", "sqlite:///new.db"]
    assert "the export has some; say where" in lapse(folder, *to).stderr
    new = ["--artifact-service-uri", f"file://{folder}/new"]
    assert lapse(folder, *to, *new).returncode == 0
    there = FileArtifactService(folder / "new")
    found = await there.load_artifact(
        app_name="app", user_id="ann", session_id="s1", filename="a.txt"
    )
    assert found.inline_data.data == b"one"
    elsewhere = ["import", "out", "--store", "sqlite:///third.db", "--without-artifacts"]
    assert lapse(folder, *elsewhere).returncode == 0


def test_conversations_elsewhere_are_refused(folder):
    uri = {"LAPSE_CONVERSATIONS_URI": "memory://"}
    for command in (["export", "--user", USER, "--out", "out"], ["import", "out"]):
        assert "not with this service" in lapse(folder, *command, **uri).stderr


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
async def test_an_import_that_is_killed_leaves_nothing_and_can_be_done_again(kind, share, tmp_path):
    """Seen to fail with a transaction for each page."""
    source = store_with_parts(f"sqlite:///{tmp_path}/lapse.db")
    revision = await create(source, "s1")
    for number in range(4000):
        event = message(f"m{number:05}", "x" * 200, at=T0)
        revision = (await source.at(T0).append(key("s1"), event, revision)).value.revision
    await source.close()
    assert lapse(tmp_path, "export", "--user", "ann", "--out", "out").returncode == 0
    (backend,) = (one for one in BACKENDS if one.name == kind)
    with backend.empty(tmp_path / "target") as url:
        target = store_with_parts(url)
        await target.open()
        took = -time.monotonic()
        assert lapse(tmp_path, "import", "out", "--store", url).returncode == 0
        took += time.monotonic()
        await target.delete(key("s1"))
        _forget_state(url)
        _kill_after(took * share, tmp_path, "import", "out", "--store", url)
        found = await target.at(T0).read(key("s1"))
        assert found is None or len(found.events) == 4000
        if found is None:
            assert await target.user_state("app", "ann") == {}
            done = lapse(tmp_path, "import", "out", "--store", url)
            assert done.returncode == 0, done.stderr
            assert len((await target.at(T0).read(key("s1"))).events) == 4000
        await target.close()


def _kill_after(seconds, folder, *command):
    """Kill a command wherever it is then."""
    with subprocess.Popen([LAPSE, *command], cwd=folder, env=environment()) as killed:
        time.sleep(seconds)
        killed.send_signal(signal.SIGKILL)


def _forget_state(url):
    if url.startswith("postgres"):
        postgres.run(url, "DELETE FROM user_states")
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM user_states")
