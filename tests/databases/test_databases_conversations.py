"""`lapse report --conversations`: empty sessions counted through a session service's API."""

from __future__ import annotations

import asyncio

import pytest
from test_databases_report import TTL

from calling import Caller
from lapse.adk.conversations_uri import service_from_uri
from lapse.adk.elsewhere import Elsewhere
from lapse.conversations.rules import Bounds
from lapse.databases import conversations
from lapse.databases.conversations import report_of_service
from stock_databases import COUNTS, contents, fill
from valkey_server import redis_url

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

SAME = (*COUNTS, "sessions", "due", "apps", "emptyByAge", "days")
BOTH = ("--app", "shop", "--app", "zoo")


def uri_of(url):
    """Name a database as a session service; that of ADK's web server is named alike."""
    driver = "" if "session.db" in url else "+aiosqlite"
    return url.replace("://", f"{driver}://").replace("postgresql+aiosqlite", "postgresql+asyncpg")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return Caller(monkeypatch, capsys, f"sqlite:///{tmp_path}/none.db")


def test_a_service_is_counted_like_its_database_and_left_unchanged(command, stock_database_url):
    """Seen to fail with shared state counted as a session's own."""
    before = contents(stock_database_url)
    known = command.bare("report", stock_database_url, "--json").json
    uri = uri_of(stock_database_url)
    told = command.bare("report", "--conversations", uri, *BOTH, "--json", "--rate", "1000")
    assert {name: told.json[name] for name in SAME} == {name: known[name] for name in SAME}
    assert told.json["firstMessageWithinSeconds"] == {}, "a service tells no time of creation"
    assert (told.json["databaseBytes"], told.json["lobby"]) == (None, {})
    of_one = command.bare("report", "--app", "zoo", "--json", LAPSE_CONVERSATIONS_URI=uri).json
    assert (of_one["sessions"], of_one["empty"]) == (1, 1)
    assert contents(stock_database_url) == before


async def test_redis_is_counted_too():
    uri = redis_url()
    service = service_from_uri(uri)
    await fill(service)
    asked = Elsewhere(service, Bounds())
    found = await report_of_service(asked, uri, ["shop", "zoo", "none"], TTL, rate=1000)
    await service._redis_client.aclose()
    assert {name: found.document()[name] for name in COUNTS} == COUNTS


async def test_the_rate_bounds_each_session_that_is_read(monkeypatch, tmp_path):
    """Seen to fail with a rate that bounds requests of eight sessions each."""
    spent, told = [], []

    class Counting:
        def __init__(self, per_second):
            spent.append(per_second)

        async def spent(self, count):
            spent.append(count)

    monkeypatch.setattr(conversations, "Throttle", Counting)
    uri = f"sqlite+aiosqlite:///{tmp_path}/chats.db"

    def on_listed(sessions):
        told.append(sessions)
        return told.append

    async with service_from_uri(uri) as service:
        await fill(service)
        asked = Elsewhere(service, Bounds())
        await report_of_service(asked, uri, ["shop"], TTL, rate=3, on_listed=on_listed)
    assert spent[0] == 3
    assert sum(spent[1:]) == 12
    assert (told[0], told[-1]) == (12, 12)


def test_the_table_offers_nothing_that_a_service_cannot_do(command, tmp_path):
    uri = f"sqlite+aiosqlite:///{tmp_path}/chats.db"

    async def filled():
        async with service_from_uri(uri) as service:
            await fill(service)

    asyncio.run(filled())
    said = command.bare("report", "--conversations", uri, *BOTH).out
    assert f"Sessionsof{uri}" in "".join(said.split())
    assert "In 2 more only the agent spoke" in said
    assert "adopt" not in said
    assert "Nothing was changed." in said


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (("--conversations", "memory://"), 1, "--app: name each app"),
        (("--conversations", "memory://", *BOTH, "--artifacts", "."), 1, "not with this service: "),
        (("--conversations", "memory://", "sqlite:///x.db"), 2, "name a database"),
        (("--conversations", "nonsense", *BOTH), 1, "as a URI"),
        (
            ("--conversations", "postgresql+asyncpg://ann:secret@127.0.0.1:1/x", *BOTH),
            1,
            "the service of conversations does not answer",
        ),
    ],
)
def test_what_cannot_be_counted_is_told_without_a_password(command, arguments, status, reason):
    refused = command.bare("report", *arguments)
    assert refused.status == status
    assert reason in refused.err
    assert "secret" not in refused.err + refused.out
