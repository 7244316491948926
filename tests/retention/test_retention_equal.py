"""Whatever a session holds, it comes back from the archive byte for byte, on every store.

Stock ADK reads and writes in between. LAPSE_TEST_EXAMPLES=10000 has the long test try so many.
"""

import asyncio
import json
import os
from contextlib import suppress
from itertools import count

import pytest
from archiving import DAY, archive
from google.adk.events.event import Event
from google.genai.types import Content, Part
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, StatementError

from backends import T0, key
from generated_events import JSON, events
from lapse.core.lifecycle import Cause

FAR = T0 + 9 * 365 * DAY
NUMBERS = count()
STATES = st.dictionaries(st.text(max_size=4), JSON).filter(
    lambda state: "\\u0000" not in json.dumps(state)  # PostgreSQL's JSON holds no NUL
)


EXAMPLES = int(os.environ.get("LAPSE_TEST_EXAMPLES", "300"))
NEIGHBOUR = {"app_name": "app", "user_id": "ann", "session_id": "neighbour"}


async def rows(stock):
    """Return all that ADK's tables hold of the sessions that are archived, and of their events."""
    found = [
        await stock.rows("SELECT * FROM sessions WHERE id <> 'neighbour'"),
        await stock.rows("SELECT * FROM events WHERE session_id <> 'neighbour'"),
    ]
    return [sorted(map(repr, (dict(row) for row in some))) for some in found]


async def read(stock, one):
    """Return a session as stock ADK reads it; None if it does not exist."""
    found = await stock.get_session(app_name="app", user_id="ann", session_id=one.session_id)
    return found and found.model_dump_json(exclude={"state"})


async def there_and_back(stock, store, keys, neighbour):
    """Archive sessions and restore them, while stock ADK looks for them and writes elsewhere."""
    shown = [await read(stock, one) for one in keys]
    before = await rows(stock)
    assert (await archive(store, *keys, now=FAR)).value.archived == len(keys)
    assert await rows(stock) == [[], []]
    assert await read(stock, keys[0]) is None
    await stock.append_event(neighbour, said(next(NUMBERS)))
    for one in keys:
        await store.resurrect(one, cause=Cause.REQUEST)
    assert await rows(stock) == before
    assert [await read(stock, one) for one in keys] == shown


def said(number):
    content = Content(role="user", parts=[Part(text=f"hello {number}")])
    return Event(author="user", content=content, timestamp=T0.timestamp() + 1)


async def lived(stock, store, sessions):
    """Have sessions that stock ADK made, with records; return their keys."""
    keys = []
    for number, (state, made) in enumerate(sessions):
        plain = {name: value for name, value in state.items() if ":" not in name}
        name = f"s{next(NUMBERS)}"
        session = await stock.create_session(
            app_name="app", user_id="ann", session_id=name, state=plain
        )
        await stock.append_event(session, said(number))
        for event in made:
            with suppress(DBAPIError, StatementError, ValueError):  # no database can hold it
                await stock.append_event(session, event)
        keys.append(key(name))
    for one in keys:
        await store.at(T0).record_used(one)
    return keys


@pytest.mark.parametrize("examples", [10, pytest.param(EXAMPLES, marks=pytest.mark.long)])
@pytest.mark.timeout(max(1200, 2 * EXAMPLES))
async def test_archive_then_restore_changes_nothing(store, stock, examples, record_property):
    """Twice, with a message of stock ADK in between.

    Seen to fail without the microseconds of events.
    """
    compared = 0
    neighbour = await stock.create_session(**NEIGHBOUR)

    async def one(sessions):
        nonlocal compared
        keys = await lived(stock, store, sessions)
        await there_and_back(stock, store, keys, neighbour)
        back = await stock.get_session(app_name="app", user_id="ann", session_id=keys[0].session_id)
        await stock.append_event(back, said(next(NUMBERS)))
        await there_and_back(stock, store, keys, neighbour)
        compared += len(keys)
        for name in keys:
            await store.delete(name)

    loop = asyncio.get_running_loop()

    @settings(
        max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(st.tuples(STATES, st.lists(events(), max_size=4)), min_size=1, max_size=4))
    def check(sessions):
        asyncio.run_coroutine_threadsafe(one(sessions), loop).result(timeout=60)

    await asyncio.to_thread(check)
    record_property("sessions", compared)
    assert compared
