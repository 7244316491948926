"""`delete_session`, `flush` and `close`, by ADK's contract."""

from __future__ import annotations

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError

from adk_builders import (
    APP,
    USER,
    create_session,
    delete_session,
    get_session,
    message_event,
    state_event,
)
from adk_versions import since_adk
from lapse import LapseSessionService
from lapse.core.errors import NoSuchSessionError, StoreUnavailableError
from lapse.core.keys import SessionKey
from parts import store_with_parts


@pytest.mark.parametrize(
    "make", [None, state_event, message_event], ids=["empty", "waiting", "used"]
)
async def test_a_deleted_session_is_gone_for_every_reader(service, make):
    session = await create_session(service, session_id="s-1")
    other = await create_session(service, session_id="s-2")
    if make is not None:
        await service.append_event(session, make())
        await service.append_event(other, make())
    await delete_session(service, "s-1")
    assert await get_session(service, "s-1") is None
    listed = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
    assert [found.id for found in listed] == ["s-2"]
    assert len((await get_session(service, "s-2")).events) == (make is not None)


async def test_deleting_twice_or_deleting_an_unknown_session_is_no_error(service):
    session = await create_session(service)
    await delete_session(service, session.id)
    await delete_session(service, session.id)
    await delete_session(service, "never was")


async def test_a_delete_leaves_the_same_id_of_other_users_and_apps(service):
    for user in ("ada", "bob"):
        await create_session(service, session_id="s-1", user_id=user)
    await delete_session(service, "s-1")
    assert await get_session(service, "s-1", user_id="bob") is not None


@pytest.mark.parametrize("make", [state_event, message_event])
async def test_an_append_after_the_deletion_finds_no_session(service, make):
    session = await create_session(service, state={"k": 1})
    await service.append_event(session, make())
    await delete_session(service, session.id)
    before = session.model_copy(deep=True)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, make(delta={"k": 2, "app:a": 2}))
    assert session.events == before.events
    assert session.state == before.state
    assert (await create_session(service)).state == {}


async def test_an_id_is_free_again_after_the_deletion(service):
    session = await create_session(service, session_id="s-1", state={"k": 1})
    await service.append_event(session, message_event())
    await delete_session(service, "s-1")
    again = await create_session(service, session_id="s-1", state={"l": 1})
    assert again.events == []
    assert await get_session(service, "s-1") == again


async def test_the_arguments_may_be_given_by_position(database_service):
    session = await create_session(database_service)
    await database_service.delete_session(APP, USER, session.id)
    assert await get_session(database_service, session.id) is None


async def test_a_delete_strips_white_space_around_the_id(stripping_service):
    await create_session(stripping_service, session_id="s-1")
    await delete_session(stripping_service, " s-1 ")
    assert await get_session(stripping_service, "s-1") is None


async def test_a_delete_removes_the_lifecycle_record_too(lapse):
    session = await create_session(lapse)
    await lapse.append_event(session, message_event())
    await delete_session(lapse, session.id)
    with pytest.raises(NoSuchSessionError):
        await lapse.lifecycle(SessionKey(APP, USER, session.id))


@since_adk("1.33", "a session service has no flush")
async def test_flush_may_be_called_at_any_time_even_after_close(lapse):
    await lapse.flush()
    await create_session(lapse)
    await lapse.flush()
    await lapse.close()
    await lapse.flush()
    await lapse.close()


async def test_a_closed_service_refuses_calls_and_keeps_what_is_stored(tmp_path):
    url = f"sqlite:///{tmp_path}/lapse.db"
    service = LapseSessionService(store_with_parts(url))
    session = await create_session(service)
    await service.append_event(session, message_event())
    await service.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await create_session(service)
    async with LapseSessionService(store_with_parts(url)) as again:
        assert await get_session(again, session.id) == session
