"""`delete_session`, `flush` and `close`, by ADK's contract."""

from __future__ import annotations

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError

from adk_builders import APP, USER, created, deleted, got, noted, spoken
from lapse import LapseSessionService
from lapse.core.errors import NoSuchSessionError, StoreUnavailableError
from lapse.core.keys import SessionKey
from parts import store_with_parts


@pytest.mark.parametrize("make", [None, noted, spoken], ids=["empty", "waiting", "used"])
async def test_a_deleted_session_is_gone_for_every_reader(service, make):
    session = await created(service, session_id="s-1")
    other = await created(service, session_id="s-2")
    if make is not None:
        await service.append_event(session, make())
        await service.append_event(other, make())
    await deleted(service, "s-1")
    assert await got(service, "s-1") is None
    listed = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
    assert [found.id for found in listed] == ["s-2"]
    assert len((await got(service, "s-2")).events) == (make is not None)


async def test_deleting_twice_or_deleting_an_unknown_session_is_no_error(service):
    session = await created(service)
    await deleted(service, session.id)
    await deleted(service, session.id)
    await deleted(service, "never was")


async def test_a_delete_leaves_the_same_id_of_other_users_and_apps(service):
    for user in ("ada", "bob"):
        await created(service, session_id="s-1", user_id=user)
    await deleted(service, "s-1")
    assert await got(service, "s-1", user_id="bob") is not None


@pytest.mark.parametrize("make", [noted, spoken])
async def test_an_append_after_the_deletion_finds_no_session(service, make):
    session = await created(service, state={"k": 1})
    await service.append_event(session, make())
    await deleted(service, session.id)
    before = session.model_copy(deep=True)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, make(delta={"k": 2, "app:a": 2}))
    assert session.events == before.events
    assert session.state == before.state
    assert (await created(service)).state == {}


async def test_an_id_is_free_again_after_the_deletion(service):
    session = await created(service, session_id="s-1", state={"k": 1})
    await service.append_event(session, spoken())
    await deleted(service, "s-1")
    again = await created(service, session_id="s-1", state={"l": 1})
    assert again.events == []
    assert await got(service, "s-1") == again


async def test_the_arguments_may_be_given_by_position(durable):
    session = await created(durable)
    await durable.delete_session(APP, USER, session.id)
    assert await got(durable, session.id) is None


async def test_a_delete_strips_white_space_around_the_id(trimming):
    await created(trimming, session_id="s-1")
    await deleted(trimming, " s-1 ")
    assert await got(trimming, "s-1") is None


async def test_a_delete_removes_the_lifecycle_record_too(lapse):
    session = await created(lapse)
    await lapse.append_event(session, spoken())
    await deleted(lapse, session.id)
    with pytest.raises(NoSuchSessionError):
        await lapse.lifecycle(SessionKey(APP, USER, session.id))


async def test_flush_may_be_called_at_any_time_even_after_close(lapse):
    await lapse.flush()
    await created(lapse)
    await lapse.flush()
    await lapse.close()
    await lapse.flush()
    await lapse.close()


async def test_a_closed_service_refuses_calls_and_keeps_what_is_stored(tmp_path):
    url = f"sqlite:///{tmp_path}/lapse.db"
    service = LapseSessionService(store_with_parts(url))
    session = await created(service)
    await service.append_event(session, spoken())
    await service.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await created(service)
    async with LapseSessionService(store_with_parts(url)) as again:
        assert await got(again, session.id) == session
