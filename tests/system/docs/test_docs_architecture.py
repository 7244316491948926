"""`docs/architecture.md` and the code agree: folders, files, riders, the seam of the store."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from backends import T0, TICK, TTL, key, message, note, words
from lapse.core.documents import split_state
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Rules
from lapse.core.messages import UsedBy
from lapse.store import store_from_url
from lapse.store.conversations import Conversations
from lapse.store.database import Database
from lapse.store.holding import HoldStore
from lapse.store.lobby import Lobby
from lapse.store.operation import Answer, Asking, Dialect, Part, first, operation
from lapse.store.records import Revision
from lapse.store.sessions import Sessions
from lapse.store.sqlite.transaction import Transaction
from lapse.store.statements import read_script, read_statements
from lapse.sweep.store import SweepStore

ROOT = Path(__file__).parents[3]
LAPSE = ROOT / "src" / "lapse"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(title: str, position: int = 0) -> list[list[str]]:
    """Return the rows of a section's table, without its head."""
    tables = re.findall(r"(?:^\|.*\|\n)+", section(title), re.MULTILINE)
    rows = tables[position].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows]


def names(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


RIDERS = set[str]().union(*(names(row[0]) for row in table("What rides in each transition", 1)))
OUTER = {"app:a": 1, "user:u": 1}


def test_the_table_of_folders_lists_each_folder_and_no_other():
    """Seen to fail with `audit` left out."""
    folders = {path.parent.name for path in LAPSE.glob("*/__init__.py")}
    modules = {"app.py", "hosted.py", "settings.py", "works.py"}
    assert {row[1].strip("`") for row in table("Folders")} == folders | modules


def test_every_file_on_the_page_exists():
    """Seen to fail with `sweep/brakes.py`."""
    mentioned = set(re.findall(r"`((?:\w+/)+\w+(?:\.\w+)+)`", PAGE))
    assert len(mentioned) > 20
    assert {
        path
        for path in mentioned
        if not any((base / path).exists() for base in (ROOT, LAPSE)) and "/" in path
    } == set()


def test_each_question_is_answered_with_at_most_three_files():
    rows = table("Where is what")
    assert len(rows) >= 10
    for question, answer in rows:
        assert question.endswith("?")
        assert 1 <= len(set(re.findall(r"`[\w/]+\.(?:py|sql)`", answer))) <= 3, question


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    store = store_from_url("sqlite:///:memory:", Rules(artifacts=True)).at(T0)
    yield Sessions(store)
    await store.close()


@pytest.fixture
def riders_seen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Collect the names of the riders that run."""
    found: set[str] = set()
    rows, run, ride = Transaction._rows, Transaction.run, Transaction.ride

    def noting_rows(self: Transaction, name: str, *args: Any) -> Answer:
        found.update({name} & RIDERS)
        return rows(self, name, *args)

    def noting_run(self: Transaction, name: str, **params: Any) -> Any:
        found.update({name} & RIDERS)
        return run(self, name, **params)

    def noting_ride(self: Transaction, name: str, **params: Any) -> None:
        found.update({name} & RIDERS)
        ride(self, name, **params)

    monkeypatch.setattr(Transaction, "_rows", noting_rows)
    monkeypatch.setattr(Transaction, "run", noting_run)
    monkeypatch.setattr(Transaction, "ride", noting_ride)
    return found


async def test_the_table_lists_the_riders_of_each_transition(  # noqa: PLR0915 - one by one
    sessions: Sessions, riders_seen: set[str]
):
    """Seen to fail without `count` in the row of `extend`, and with `audit_change` in `create`."""

    def at(after: timedelta) -> Sessions:
        return Sessions(sessions._database.at(T0 + after))

    async def created(name: str, state: dict[str, Any]) -> Any:
        made = await sessions.create(key(name), state=split_state(state), ttl=TTL, metadata={})
        return made.value.revision

    seen: dict[str, set[str]] = {}

    def done(transition: str) -> None:
        seen[transition] = set(riders_seen)
        riders_seen.clear()

    for name in "abcd":
        await created(name, {})
    await sessions.expire(key("a"))  # its row is taken over next
    riders_seen.clear()
    revision = await created("a", OUTER)
    done("`create`")
    held = await sessions.append(key("a"), note(at=T0 + TICK, state=OUTER), revision)
    done("other `append`")
    revision = held.value.revision
    await sessions.append(key("a"), message(at=T0 + 2 * TICK, state=OUTER), revision)
    done("first message")
    for_user = {"state": split_state({}), "ttl": TICK, "metadata": {}, "used_by": UsedBy.USER}
    await sessions.create(key("e"), **for_user)
    riders_seen.clear()
    event = words(at=T0 + TICK, state=OUTER)
    held = await at(TICK).append(key("e"), event, Revision(T0, 0))
    done("`hold_words`")
    await at(TICK).append(key("e"), message(at=T0 + 2 * TICK), held.value.revision)
    riders_seen.clear()
    await sessions.amend(key("b"), metadata={"m": 1}, by="ann")
    done("`amend`")
    await at(TTL / 2).extend(key("b"), by="ann")
    done("`extend`")
    await sessions.create(key("f"), **(for_user | {"ttl": TTL}))
    riders_seen.clear()
    await HoldStore(sessions._database).restart_ttl(key("f"), held_for=TICK)
    done("`restart_ttl`")
    await sessions.delete(key("f"))
    riders_seen.clear()
    await sessions.expire(key("c"), by="ann")
    done("`expire`")
    await sessions.resurrect(key("c"), cause=Cause.REQUEST, by="ann")
    done("`resurrect`")
    await sessions.delete(key("d"), by="ann")
    done("`delete`")
    assert (await at(2 * TTL).expire_due(9)).value == 2
    done("`expire_due`")
    await sessions.create(key("g"), **(for_user | {"ttl": TTL}))
    riders_seen.clear()
    assert len(await SweepStore(at(2 * TTL)._database).expire_backlog(9)) == 1
    done("`expire_backlog`")
    assert (await at(timedelta(days=2)).purge_due(9)).value == 3
    done("`purge_due`")
    page = {row[0]: names(row[2]) for row in table("What rides in each transition")}
    assert page == seen


def test_the_table_lists_the_statements_that_notify():
    files = ("sessions.sql", "messages.sql", "deadlines.sql")
    script = "".join(read_script(Dialect.POSTGRES, name) for name in files)
    parts = set(re.findall(r"\{(\w+)\}", script))
    own = set(re.findall(r"^-- name: (\w+)$", script, re.MULTILINE)) - parts
    whole = read_statements(Dialect.POSTGRES)
    rows = table("What rides in each transition")
    told = set[str]().union(*(names(row[0]) for row in rows if len(row) > 3 and row[3].strip()))
    assert told == {name for name in own if "pg_notify" in whole[name]}


def test_the_database_protocol_has_the_members_that_the_page_names():
    members = {name for name in vars(Database) if not name.startswith("_")}
    (told,) = re.findall(r"It has eleven members: (.*?)\. `run`", PAGE, re.DOTALL)
    assert names(told) == members
    assert len(members) == 11


def test_sessions_has_fifteen_operations():
    of_parts = (*vars(Lobby).items(), *vars(Conversations).items())
    assert len({name for name, member in of_parts if hasattr(member, "__wrapped__")}) == 15


async def test_the_example_of_an_operation_runs_as_printed():
    (program,) = re.findall(r"<!-- operation -->\n +```python\n(.*?)```", PAGE, re.DOTALL)

    class Fake:
        async def run(self, asking: Any, **_options: Any) -> Any:
            step = asking()
            asked = next(step)
            assert (asked.name, asked.key) == ("greeting", key("a"))
            with pytest.raises(StopIteration) as end:
                step.send(Answer([{"greeting": "hello"}]))
            return end.value.value

    space = {
        "Part": Part, "operation": operation, "first": first, "Asking": Asking,
        "SessionKey": SessionKey,
    }  # fmt: skip
    exec(dedent(program), space)
    assert await space["GreetingStore"](Fake()).greeting(key("a")) == "hello"
