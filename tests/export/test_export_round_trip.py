"""An export is imported elsewhere, and what is exported there is the same to the byte."""

import asyncio
import json
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime

import pytest
from google.adk.artifacts.file_artifact_service import FileArtifactService
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.genai import types

import postgres
from adk_builders import message_event
from backends import BACKENDS, T0, create, key, levels, message, use
from lapse.core.errors import InvalidValueError, StoreRefusedError
from lapse.export.artifacts import Artifacts
from lapse.export.exporting import Export
from lapse.export.importing import Import
from lapse.export.places import PLACES
from lapse.export.sinks import Folder
from lapse.export.store import AlreadyStoredError
from lapse.store.archiving import unpack
from parts import Intercepted, store_with_parts
from stores import DRIVERS
from users_data import fill, oddities

AT = datetime(2030, 1, 2, tzinfo=UTC)
USER = "zoë o'neil@example.com"


@pytest.fixture
async def other(backend, tmp_path):
    """An empty store of the same kind."""
    with backend.empty(tmp_path / "other") as url:
        store = store_with_parts(url)
        await store.open()
        store.url = url
        yield store
        await store.close()


async def exported(store, folder, user=USER, *, app=None, artifacts=None):
    async with store.snapshot() as snapshot:
        export = Export(snapshot, user, app_name=app, artifacts=artifacts, at=AT, lapse="1")
        async for _ in export.write(Folder(folder)):
            pass
    return export.manifest


async def imported(store, folder, *, artifacts=None):
    work = Import(store, folder, artifacts=artifacts)
    await work.verify()
    await work.check()
    return await work.put(lambda _: None)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run_sql(url, statements):
    if url.startswith("postgres"):
        postgres.run(url, *statements)
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        for statement in statements:
            connection.execute(statement)


async def test_what_was_imported_is_exported_the_same_to_the_byte(
    backend, store, store_url, other, tmp_path
):
    """Seen to fail where the export leaves out a column, and where times lose microseconds."""
    await fill(store, USER, "mark")
    await use(store, "s1")
    if backend.shared:
        run_sql(store_url, oddities(USER.replace("'", "''")))
    first = await exported(store, tmp_path / "first")
    assert all(first.lines[place.file] for place in PLACES)
    written = await imported(other, tmp_path / "first")
    assert sum(written.values()) == sum(first.lines.values())
    await exported(other, tmp_path / "second")
    assert contents(tmp_path / "second") == contents(tmp_path / "first")
    assert await other.list("app", "ann") == []


TABLES = ("user_states", "sessions", "events", "lapse_lobby", "lapse_archive", "lapse_runs")


def rows_of(url, table):
    if url.startswith("postgres"):
        if table == "lapse_archive":  # PostgreSQL packs JSON with other spaces
            found = postgres.rows(url, f"SELECT * FROM {table}")
            return sorted(repr((row[:6], unpack(row[6]))) for row in found)
        found = postgres.rows(url, f"SELECT to_jsonb(t)::text FROM {table} AS t")
        return sorted(row[0] for row in found)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        found = connection.execute(f"SELECT * FROM {table}")
        # A state of the user that Lapse wrote has a time of whole seconds, without the zeros.
        return sorted(repr(row).replace(".000000'", "'") for row in found)


async def test_what_was_imported_is_stored_the_same_to_the_byte(
    store, reopen, store_url, other, tmp_path
):
    """Seen to fail where a text is not kept that JSON would write another way, and on PostgreSQL
    with other spans of time that are as long."""
    await fill(store, USER, "mark")
    run_sql(store_url, oddities(USER.replace("'", "''")))
    await exported(store, tmp_path / "out")
    await imported(other, tmp_path / "out")
    for table in TABLES:
        assert rows_of(other.url, table) == rows_of(store_url, table), table


async def test_the_files_of_an_import_are_read_before_its_transaction_begins(
    store, other, tmp_path
):
    """Nobody waits for a disk while the import holds its locks.

    Seen to fail with files that are read while the rows are written.
    """
    await fill(store, USER, "mark")
    await exported(store, tmp_path / "out")

    class Removing(Intercepted):
        async def around(self, name, do):
            if name == "put":
                for path in (tmp_path / "out").iterdir():
                    path.unlink()
            return await do()

    written = await imported(Removing(other.database), tmp_path / "out")
    assert written["sessions"]


async def test_an_import_is_counted_and_lives_on(store, other, tmp_path):
    """Seen to fail without the counts."""
    keys = await fill(store, USER, "mark")
    before = await levels(store)
    await exported(store, tmp_path / "out")
    await imported(other, tmp_path / "out")
    assert await levels(other) == before
    for one in keys:
        assert await other.at(T0).lifecycle(one) == await store.at(T0).lifecycle(one)
        expected = await store.at(T0).read(one)
        if expected is not None:
            expected.state.pop("app:shared", None)  # it is nobody's, and stays where it is
        assert await other.at(T0).read(one) == expected
    used = await other.at(T0).read(keys[0])
    await other.at(T0).append(keys[0], message("later", at=AT), used.revision)


async def test_stock_adk_reads_and_writes_what_was_imported(store, stock, tmp_path):
    keys = await fill(store, USER, "mark")
    await exported(store, tmp_path / "out")
    (tmp_path / "there").mkdir()
    (backend,) = (one for one in BACKENDS if one.name == "sqlite")
    with backend.empty(tmp_path / "there") as url:
        other = store_with_parts(url)
        await imported(other, tmp_path / "out")
        await other.close()
        scheme, _, rest = url.partition("://")
        async with DatabaseSessionService(f"{DRIVERS[scheme]}://{rest}") as there:
            asked = keys[0]._asdict()
            session = await there.get_session(**asked)
            expected = await stock.get_session(**asked)
            assert session.events == expected.events
            # `app:` state is nobody's, and stays where it is.
            assert session.state == {
                name: value for name, value in expected.state.items() if name != "app:shared"
            }
            await there.append_event(session, message_event("more"))


async def test_only_one_app_is_exported_if_it_is_named(store, tmp_path):
    await fill(store, USER, "mark")
    await exported(store, tmp_path / "out", app="zoo")
    for place in PLACES:
        lines = (tmp_path / "out" / place.file).read_text().splitlines()
        assert {json.loads(line)["appName"] for line in lines} == {"zoo"}


async def test_many_rows_are_read_page_by_page(store, other, tmp_path, monkeypatch):
    """Seen to fail with a page that begins at the last row of the page before."""
    monkeypatch.setattr("lapse.export.exporting._PAGE", 2)
    monkeypatch.setattr("lapse.export.importing._PAGE", 3)
    await fill(store, USER, "mark")
    paged = await exported(store, tmp_path / "paged")
    monkeypatch.undo()
    await exported(store, tmp_path / "whole")
    assert contents(tmp_path / "paged") == contents(tmp_path / "whole")
    monkeypatch.setattr("lapse.export.importing._PAGE", 3)
    await imported(other, tmp_path / "paged")
    again = await exported(other, tmp_path / "again")
    assert again == paged


async def test_an_export_shows_one_moment(store, tmp_path):
    """Seen to fail on PostgreSQL with a transaction that is read committed."""
    revision = await use(store, "s1")
    async with store.snapshot() as snapshot:
        export = Export(snapshot, "ann", app_name=None, artifacts=None, at=AT, lapse="1")
        writing = export.write(Folder(tmp_path / "out"))
        assert await anext(writing) == 1  # the user's state was read, and nothing else
        await store.at(T0).append(key("s1"), message("m2"), revision)
        await create(store, "s2")
        async for _ in writing:
            pass
    lines = {name: text.count(b"\n") for name, text in contents(tmp_path / "out").items()}
    assert (lines["sessions.jsonl"], lines["events.jsonl"], lines["lobby.jsonl"]) == (1, 1, 1)


async def test_nobody_else_can_read_the_files(store, tmp_path):
    await use(store, "s1")
    await exported(store, tmp_path / "out", "ann")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


async def test_a_folder_with_anything_in_it_is_refused(store, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(InvalidValueError, match="not empty"):
        await exported(store, tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine": b"x"}


async def test_what_exists_is_refused_by_name_and_nothing_is_imported(store, other, tmp_path):
    """Seen to fail without the check that comes first."""
    keys = await fill(store, USER, "mark")
    await exported(store, tmp_path / "out")
    await create(other, keys[1])
    with pytest.raises(AlreadyStoredError, match="mark-app-held"):
        await imported(other, tmp_path / "out")
    assert [found.key for found in await other.at(T0).list("app", USER)] == [keys[1]]
    assert await other.at(T0).list("zoo", USER) == []


async def test_what_comes_between_the_check_and_the_import_is_refused_as_well(
    store, other, tmp_path
):
    """Seen to fail with an import that leaves alone what exists, and goes on."""
    keys = await fill(store, USER, "mark")
    await exported(store, tmp_path / "out")
    work = Import(other, tmp_path / "out", artifacts=None)
    await work.verify()
    await work.check()
    await create(other, keys[-1])
    before = await levels(other)
    with pytest.raises(AlreadyStoredError, match="lobby"):
        await work.put(lambda _: None)
    assert await other.at(T0).list("app", USER) == []
    assert [found.key for found in await other.at(T0).list("zoo", USER)] == [keys[-1]]
    assert await levels(other) == before


@pytest.mark.parametrize("name", [*(place.file for place in PLACES), "manifest.json"])
async def test_a_file_that_was_changed_is_refused(store, other, tmp_path, name):
    """Seen to fail without the checksums."""
    await fill(store, USER, "mark")
    await exported(store, tmp_path / "out")
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes().replace(b"mark", b"park").replace(b"sha256", b"sha255"))
    if name == "user-states.jsonl":
        assert b"park" in path.read_bytes()
    with pytest.raises(StoreRefusedError, match=r"not what was exported|no manifest of an export"):
        await imported(other, tmp_path / "out")
    assert await other.list("app", USER) == []


async def test_an_export_that_was_stopped_is_refused(store, other, tmp_path):
    """Seen to fail with a manifest that is written first."""
    await fill(store, USER, "mark")
    async with store.snapshot() as snapshot:
        export = Export(snapshot, USER, app_name=None, artifacts=None, at=AT, lapse="1")
        writing = export.write(Folder(tmp_path / "out"))
        await anext(writing)
        await writing.aclose()
    with pytest.raises(StoreRefusedError, match="export again if that was stopped"):
        await imported(other, tmp_path / "out")


async def test_a_line_of_another_user_is_refused(store, other, tmp_path):
    """Seen to fail without the check of the line's user."""
    await use(store, "s1")
    await exported(store, tmp_path / "out", "ann")
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"ann"', '"bob"'))
    with pytest.raises(StoreRefusedError, match="must be the user of the manifest"):
        await imported(other, tmp_path / "out")


async def test_artifacts_come_along_with_all_versions_and_are_saved_once(store, other, tmp_path):
    """Seen to fail where an import saves again what a stopped one has saved."""
    keys = await fill(store, "ann", "mark")
    here, there = (FileArtifactService(tmp_path / name) for name in ("here", "there"))
    for text in ("one", "two"):
        part = types.Part(inline_data=types.Blob(data=text.encode(), mime_type="text/plain"))
        for name in ("own.txt", "user:shared.txt"):
            await here.save_artifact(
                **keys[0]._asdict(), filename=name, artifact=part, custom_metadata={"n": text}
            )
    first = await exported(store, tmp_path / "out", "ann", artifacts=Artifacts(here))
    assert first.lines["artifacts.jsonl"] == 4
    work = Import(other, tmp_path / "out", artifacts=Artifacts(there))
    await work.verify()
    await work.check()
    await work._each_artifact(work._saved)  # and then the import was stopped
    await imported(other, tmp_path / "out", artifacts=Artifacts(there))
    second = await exported(other, tmp_path / "again", "ann", artifacts=Artifacts(there))
    assert second == first
    found = await there.load_artifact(**keys[0]._asdict(), filename="own.txt", version=0)
    assert found.inline_data.data == b"one"


async def test_another_artifact_in_the_place_is_refused_before_anything_is_saved(
    store, other, tmp_path
):
    keys = await fill(store, "ann", "mark")
    here, there = (FileArtifactService(tmp_path / name) for name in ("here", "there"))
    for service, text in ((here, "one"), (there, "two")):
        await service.save_artifact(
            **keys[0]._asdict(), filename="z.txt", artifact=types.Part(text=text)
        )
    await here.save_artifact(**keys[0]._asdict(), filename="a.txt", artifact=types.Part(text="a"))
    await exported(store, tmp_path / "out", "ann", artifacts=Artifacts(here))
    with pytest.raises(StoreRefusedError, match="keeps another version 0"):
        await imported(other, tmp_path / "out", artifacts=Artifacts(there))
    assert await there.list_artifact_keys(**keys[0]._asdict()) == ["z.txt"]
    assert await other.list("app", "ann") == []


@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgres"), ("postgres", "sqlite")])
async def test_an_export_goes_to_the_other_kind_of_store_with_the_same_values(
    source, target, tmp_path
):
    kinds = {one.name: one for one in BACKENDS}
    with (
        kinds[source].empty(tmp_path / "a") as one_url,
        kinds[target].empty(tmp_path / "b") as other_url,
    ):
        one, other = store_with_parts(one_url), store_with_parts(other_url)
        keys = await fill(one, USER, "mark")
        await exported(one, tmp_path / "out")
        await imported(other, tmp_path / "out")
        for session in keys:
            assert await other.at(T0).lifecycle(session) == await one.at(T0).lifecycle(session)
        await exported(other, tmp_path / "again")
        await asyncio.gather(one.close(), other.close())

    def values(folder):
        return {
            name: [json.loads(line) for line in text.splitlines()]
            for name, text in contents(folder).items()
            if name != "manifest.json"
        }

    def sorted_values(found):
        return {name: sorted(map(json.dumps, map(_sorted, rows))) for name, rows in found.items()}

    assert sorted_values(values(tmp_path / "again")) == sorted_values(values(tmp_path / "out"))


def _sorted(value):
    return json.loads(json.dumps(value, sort_keys=True))
