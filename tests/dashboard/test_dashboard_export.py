"""The operators' export over HTTP: the same files as of `lapse export`, and bounded."""

import asyncio
import io
import json
import zipfile

import pytest
from fastapi import HTTPException
from operators_server import TOKEN

from lapse.core.keys import user_digest
from lapse.dashboard.cookies import Operator
from lapse.dashboard.exports import AT_ONCE, Exports
from lapse.export.exporting import Export
from lapse.export.importing import Import
from lapse.export.sinks import Folder
from parts import store_with_parts

BEARER = {"Authorization": f"Bearer {TOKEN}"}


def asked(dashboard, user, **more):
    return dashboard.served.client.get(
        "/lapse/api/export", params={"user": user, **more}, headers=BEARER
    )


async def test_the_archive_has_the_files_of_the_command_and_can_be_imported(dashboard, tmp_path):
    """Seen to fail with an archive that is not closed."""
    kept = dashboard.use("exported-1", user="zoë")
    dashboard.create("exported-2", user="zoë", app="zoo")
    answer = asked(dashboard, "zoë")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {one["name"]: one["lines"] for one in manifest["files"]} == {
        "user-states.jsonl": 1,
        "sessions.jsonl": 1,
        "events.jsonl": 1,
        "lobby.jsonl": 2,
        "archive.jsonl": 0,
        "runs.jsonl": 0,
    }

    async def written():
        async with dashboard.store.snapshot() as snapshot:
            at = Import(dashboard.store, tmp_path / "out", artifacts=None)
            moment = (await at.verify()).at
            lapse = manifest["lapse"]
            export = Export(snapshot, "zoë", app_name=None, artifacts=None, at=moment, lapse=lapse)
            async for _ in export.write(Folder(tmp_path / "again")):
                pass

    dashboard.do(written())
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    other = store_with_parts("sqlite:///:memory:")
    work = Import(other, tmp_path / "out", artifacts=None)
    await work.verify()
    await work.put(lambda _: None)
    assert (await other.lifecycle(kept)).has_messages
    await other.close()


def test_an_export_is_recorded_without_the_users_name(dashboard):
    assert asked(dashboard, "ann-who-is-recorded").status_code == 200
    act = dashboard.newest_act()
    assert (act.by, act.action) == ("operator", "exported")
    assert act.detail == {"user": user_digest("ann-who-is-recorded")}


@pytest.mark.parametrize("query", [{"user": ""}, {"user": "x" * 129}, {"user": "a", "app": ""}])
def test_wrong_names_are_refused(dashboard, query):
    assert asked(dashboard, **query).status_code == 422


def test_only_some_exports_are_made_at_a_time_and_those_that_break_off_end(dashboard):
    """Seen to fail with exports that are not counted, and with ones that are never counted back."""
    dashboard.use("bounded", user="eve")

    async def answers():
        exports, operator = Exports(dashboard.service), Operator("op", "api")
        begun = [await exports.answer(operator, "eve", None) for _ in range(AT_ONCE)]
        with pytest.raises(HTTPException, match="exports are being made"):
            await exports.answer(operator, "eve", None)
        for one in begun:
            with pytest.raises(ConnectionResetError):
                await one({"type": "http"}, _silent, _broken)
        again = await exports.answer(operator, "eve", None)
        await exports.end(again._chunks)
        return exports._made

    assert dashboard.do(answers()) == 0


async def _silent():
    await asyncio.Event().wait()


async def _broken(message):
    raise ConnectionResetError
