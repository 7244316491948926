"""An append costs one statement on PostgreSQL, wherever the session is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig

from adk_builders import APP, USER, create_session, get_session, message_event, state_event
from lapse import LapseSessionService
from lapse.store.postgres.connections import Connections
from parts import store_with_parts
from postgres import database


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each statement that runs is added."""
    ran: list[str] = []
    fetch = Connections.fetch

    async def noting(self: Connections, sql: str, *args: Any, **kwargs: Any) -> Any:
        ran.append(sql)
        return await fetch(self, sql, *args, **kwargs)

    monkeypatch.setattr(Connections, "fetch", noting)
    return ran


@pytest.mark.parametrize(
    ("before", "window"),
    [([], None), ([], 0), ([state_event], None), ([message_event], None), ([message_event], 0)],
    ids=["new", "new, no events", "holds an event", "used", "used, no events"],
)
async def test_an_append_after_a_read_costs_one_statement(
    statements: list[str], before: list[Callable[..., Event]], window: int | None
) -> None:
    """Seen to fail with `seen` that takes no session, or each one, for a waiting one."""
    with database() as url:
        async with LapseSessionService(store_with_parts(url)) as service:
            session = await create_session(service)
            for make in before:
                await service.append_event(session, make())
            read = await get_session(
                service, session.id, config=GetSessionConfig(num_recent_events=window)
            )
            for event in (message_event(), state_event(), message_event()):
                statements.clear()
                await service.append_event(read, event)
                assert len(statements) == 1


async def test_a_listed_session_takes_its_first_message_in_one_statement(
    statements: list[str],
) -> None:
    """Seen to fail with a marker that tells that the session waits, which lists did not set."""
    with database() as url:
        async with LapseSessionService(store_with_parts(url)) as service:
            await create_session(service)
            (listed,) = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
            statements.clear()
            await service.append_event(listed, message_event())
            assert len(statements) == 1
