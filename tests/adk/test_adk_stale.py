"""Writers that hold a stale session, and writers that retry."""

from __future__ import annotations

import asyncio

import pytest
from google.adk.sessions.session import Session

from adk_builders import create_session, get_session, message_event, state_event, texts
from lapse.adk.errors import StaleSessionError

both = pytest.mark.parametrize("make", [message_event, state_event], ids=["message", "state only"])


def through_json(session):
    """Return the session as another process reads it from JSON: without its revision."""
    return Session.model_validate_json(session.model_dump_json())


@both
async def test_a_writer_that_missed_an_append_is_refused_until_it_reads_again(
    database_service, make
):
    session = await create_session(database_service)
    outdated = await get_session(database_service, session.id)
    await database_service.append_event(session, make(delta={"k": 1}, timestamp=1000.0))
    with pytest.raises(StaleSessionError, match="reload"):
        await database_service.append_event(
            outdated, make(delta={"k": 2, "app:a": 2}, timestamp=1001.0)
        )
    assert outdated.events == []
    assert outdated.state == {}
    fresh = await get_session(database_service, session.id)
    assert fresh.state == {"k": 1}
    await database_service.append_event(fresh, make(delta={"k": 3}, timestamp=1002.0))
    assert (await get_session(database_service, session.id)).state == {"k": 3}


async def test_a_stale_writer_gets_a_value_error(database_service):
    session = await create_session(database_service)
    outdated = await get_session(database_service, session.id)
    await database_service.append_event(session, message_event(timestamp=1000.0))
    with pytest.raises(ValueError, match="modified in storage"):
        await database_service.append_event(outdated, message_event(timestamp=1001.0))


@both
async def test_a_copy_of_a_session_object_can_be_appended_to(database_service, make):
    session = await create_session(database_service)
    await database_service.append_event(session, make(timestamp=1000.0))
    copy = session.model_copy(deep=True)
    await database_service.append_event(copy, make(timestamp=1001.0))
    assert len((await get_session(database_service, session.id)).events) == 2
    with pytest.raises(StaleSessionError):
        await database_service.append_event(session, make(timestamp=1002.0))


@both
async def test_a_session_that_went_through_json_can_be_appended_to(service, make):
    session = await create_session(service)
    await service.append_event(session, make(delta={"n": 1}, timestamp=1763800000.123456))
    back = through_json(session)
    await service.append_event(back, make(delta={"n": 2}, timestamp=1763800001.654321))
    again = through_json(back)
    await service.append_event(again, make(delta={"n": 3}, timestamp=1763800002.000001))
    assert (await get_session(service, session.id)).state == {"n": 3}


@both
async def test_a_session_that_went_through_json_is_refused_once_it_is_outdated(
    database_service, make
):
    session = await create_session(database_service)
    await database_service.append_event(session, make(timestamp=1763800000.0))
    outdated = through_json(session)
    await database_service.append_event(session, make(timestamp=1763800001.0))
    with pytest.raises(StaleSessionError):
        await database_service.append_event(outdated, make(timestamp=1763800002.0))
    assert len((await get_session(database_service, session.id)).events) == 2


async def test_without_a_revision_the_newest_event_decides_what_is_stale_not_a_drifted_time(
    database_service,
):
    session = await create_session(database_service)
    await database_service.append_event(session, message_event(id="e1", timestamp=1763800000.5))
    drifted = through_json(session)
    drifted.last_update_time -= 1
    await database_service.append_event(drifted, message_event(id="e2", timestamp=1763800001.5))
    assert [event.id for event in (await get_session(database_service, session.id)).events] == [
        "e1",
        "e2",
    ]


@both
async def test_two_events_of_one_timestamp_do_not_hide_a_stale_writer(lapse, make):
    session = await create_session(lapse)
    await lapse.append_event(session, make(timestamp=1000.0))
    outdated = await get_session(lapse, session.id)
    await lapse.append_event(session, make(timestamp=1000.0))
    with pytest.raises(StaleSessionError):
        await lapse.append_event(outdated, make(timestamp=1000.0))
    assert len((await get_session(lapse, session.id)).events) == 2


async def test_only_one_of_several_writers_with_copies_of_a_session_succeeds(lapse):
    session = await create_session(lapse)
    copies = [await get_session(lapse, session.id) for _ in range(8)]
    outcomes = await asyncio.gather(
        *(lapse.append_event(copy, message_event(str(n))) for n, copy in enumerate(copies)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {type(error) for error in refused} == {StaleSessionError}
    assert len(refused) == 7
    assert len((await get_session(lapse, session.id)).events) == 1


@both
async def test_an_identical_retry_is_stored_once_and_applied_once(stripping_service, make):
    session = await create_session(stripping_service)
    event = make(delta={"k": 1}, timestamp=1000.0)
    await stripping_service.append_event(session, event)
    assert await stripping_service.append_event(session, event.model_copy(deep=True)) == event
    assert session.events == [event]
    after = await get_session(stripping_service, session.id)
    assert after.events == [event]
    assert after.state == {"k": 1}


@both
async def test_a_retry_by_a_writer_that_never_got_the_answer_is_stored_once(lapse, make):
    session = await create_session(lapse)
    unanswered = await get_session(lapse, session.id)
    event = make(delta={"k": 1}, timestamp=1000.0)
    await lapse.append_event(session, event.model_copy(deep=True))
    await lapse.append_event(unanswered, event)
    assert unanswered.events == [event]
    assert unanswered.state == {"k": 1}
    await lapse.append_event(unanswered, make(delta={"k": 2}, timestamp=1001.0))
    assert len((await get_session(lapse, session.id)).events) == 2


@both
async def test_a_writer_that_retries_after_another_append_stays_stale(lapse, make):
    session = await create_session(lapse)
    unanswered = await get_session(lapse, session.id)
    event = make(timestamp=1000.0)
    await lapse.append_event(session, event.model_copy(deep=True))
    await lapse.append_event(session, make(timestamp=1001.0))
    await lapse.append_event(unanswered, event)
    with pytest.raises(StaleSessionError):
        await lapse.append_event(unanswered, make(timestamp=1002.0))
    assert len((await get_session(lapse, session.id)).events) == 2


@both
async def test_a_different_event_with_a_taken_id_is_refused(lapse, make):
    session = await create_session(lapse)
    await lapse.append_event(session, make(id="e1", delta={"k": 1}))
    with pytest.raises(ValueError, match="event id"):
        await lapse.append_event(session, make(id="e1", delta={"k": 2}))
    assert (await get_session(lapse, session.id)).state == {"k": 1}
    await lapse.append_event(session, make(id="e2", delta={"k": 3}))
    assert (await get_session(lapse, session.id)).state == {"k": 3}


async def test_a_message_with_the_id_of_a_held_event_is_refused(lapse):
    session = await create_session(lapse)
    await lapse.append_event(session, state_event(id="e1"))
    with pytest.raises(ValueError, match="event id"):
        await lapse.append_event(session, message_event(id="e1"))
    await lapse.append_event(session, message_event("mine", id="e2"))
    assert texts(await get_session(lapse, session.id)) == ["mine"]


async def test_other_sessions_may_have_an_event_of_the_same_id(service):
    for user in ("ada", "bob"):
        session = await create_session(service, user_id=user, session_id="s-1")
        await service.append_event(session, message_event(user, id="e1"))
    assert texts(await get_session(service, "s-1")) == ["ada"]
    assert texts(await get_session(service, "s-1", user_id="bob")) == ["bob"]
