"""Writers that hold an outdated session, and writers that repeat themselves."""

from __future__ import annotations

import asyncio

import pytest
from google.adk.errors import StaleSessionError
from google.adk.sessions.session import Session

from adk_builders import created, got, noted, spoken, texts

both = pytest.mark.parametrize("make", [spoken, noted], ids=["message", "state only"])


def through_json(session):
    """Return the session as a process reads it that got it as JSON: without its marker."""
    return Session.model_validate_json(session.model_dump_json())


@both
async def test_a_writer_that_missed_an_append_is_refused_until_it_reads_again(durable, make):
    session = await created(durable)
    outdated = await got(durable, session.id)
    await durable.append_event(session, make(delta={"k": 1}, timestamp=1000.0))
    with pytest.raises(StaleSessionError, match="reload"):
        await durable.append_event(outdated, make(delta={"k": 2, "app:a": 2}, timestamp=1001.0))
    assert outdated.events == []
    assert outdated.state == {}
    fresh = await got(durable, session.id)
    assert fresh.state == {"k": 1}
    await durable.append_event(fresh, make(delta={"k": 3}, timestamp=1002.0))
    assert (await got(durable, session.id)).state == {"k": 3}


async def test_a_stale_writer_gets_a_value_error(durable):
    session = await created(durable)
    outdated = await got(durable, session.id)
    await durable.append_event(session, spoken(timestamp=1000.0))
    with pytest.raises(ValueError, match="modified in storage"):
        await durable.append_event(outdated, spoken(timestamp=1001.0))


@both
async def test_a_copy_of_a_session_object_can_be_appended_to(durable, make):
    session = await created(durable)
    await durable.append_event(session, make(timestamp=1000.0))
    copy = session.model_copy(deep=True)
    await durable.append_event(copy, make(timestamp=1001.0))
    assert len((await got(durable, session.id)).events) == 2
    with pytest.raises(StaleSessionError):
        await durable.append_event(session, make(timestamp=1002.0))


@both
async def test_a_session_that_went_through_json_can_be_appended_to(service, make):
    session = await created(service)
    await service.append_event(session, make(delta={"n": 1}, timestamp=1763800000.123456))
    back = through_json(session)
    await service.append_event(back, make(delta={"n": 2}, timestamp=1763800001.654321))
    again = through_json(back)
    await service.append_event(again, make(delta={"n": 3}, timestamp=1763800002.000001))
    assert (await got(service, session.id)).state == {"n": 3}


@both
async def test_a_session_that_went_through_json_is_refused_once_it_is_outdated(durable, make):
    session = await created(durable)
    await durable.append_event(session, make(timestamp=1763800000.0))
    outdated = through_json(session)
    await durable.append_event(session, make(timestamp=1763800001.0))
    with pytest.raises(StaleSessionError):
        await durable.append_event(outdated, make(timestamp=1763800002.0))
    assert len((await got(durable, session.id)).events) == 2


async def test_without_a_revision_the_newest_event_decides_what_is_stale_not_a_drifted_time(
    durable,
):
    session = await created(durable)
    await durable.append_event(session, spoken(id="e1", timestamp=1763800000.5))
    drifted = through_json(session)
    drifted.last_update_time -= 1
    await durable.append_event(drifted, spoken(id="e2", timestamp=1763800001.5))
    assert [event.id for event in (await got(durable, session.id)).events] == ["e1", "e2"]


@both
async def test_two_events_of_one_timestamp_do_not_hide_a_stale_writer(lapse, make):
    session = await created(lapse)
    await lapse.append_event(session, make(timestamp=1000.0))
    outdated = await got(lapse, session.id)
    await lapse.append_event(session, make(timestamp=1000.0))
    with pytest.raises(StaleSessionError):
        await lapse.append_event(outdated, make(timestamp=1000.0))
    assert len((await got(lapse, session.id)).events) == 2


async def test_only_one_of_several_writers_with_copies_of_a_session_succeeds(lapse):
    session = await created(lapse)
    copies = [await got(lapse, session.id) for _ in range(8)]
    outcomes = await asyncio.gather(
        *(lapse.append_event(copy, spoken(str(n))) for n, copy in enumerate(copies)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {type(error) for error in refused} == {StaleSessionError}
    assert len(refused) == 7
    assert len((await got(lapse, session.id)).events) == 1


@both
async def test_an_identical_retry_is_stored_once_and_applied_once(trimming, make):
    session = await created(trimming)
    event = make(delta={"k": 1}, timestamp=1000.0)
    await trimming.append_event(session, event)
    assert await trimming.append_event(session, event.model_copy(deep=True)) == event
    assert session.events == [event]
    after = await got(trimming, session.id)
    assert after.events == [event]
    assert after.state == {"k": 1}


@both
async def test_a_retry_by_a_writer_that_never_got_the_answer_is_stored_once(lapse, make):
    session = await created(lapse)
    unanswered = await got(lapse, session.id)
    event = make(delta={"k": 1}, timestamp=1000.0)
    await lapse.append_event(session, event.model_copy(deep=True))
    await lapse.append_event(unanswered, event)
    assert unanswered.events == [event]
    assert unanswered.state == {"k": 1}
    await lapse.append_event(unanswered, make(delta={"k": 2}, timestamp=1001.0))
    assert len((await got(lapse, session.id)).events) == 2


@both
async def test_a_writer_that_retries_after_another_append_stays_stale(lapse, make):
    session = await created(lapse)
    unanswered = await got(lapse, session.id)
    event = make(timestamp=1000.0)
    await lapse.append_event(session, event.model_copy(deep=True))
    await lapse.append_event(session, make(timestamp=1001.0))
    await lapse.append_event(unanswered, event)
    with pytest.raises(StaleSessionError):
        await lapse.append_event(unanswered, make(timestamp=1002.0))
    assert len((await got(lapse, session.id)).events) == 2


@both
async def test_a_different_event_with_a_taken_id_is_refused(lapse, make):
    session = await created(lapse)
    await lapse.append_event(session, make(id="e1", delta={"k": 1}))
    with pytest.raises(ValueError, match="event id"):
        await lapse.append_event(session, make(id="e1", delta={"k": 2}))
    assert (await got(lapse, session.id)).state == {"k": 1}
    await lapse.append_event(session, make(id="e2", delta={"k": 3}))
    assert (await got(lapse, session.id)).state == {"k": 3}


async def test_a_message_with_the_id_of_a_held_event_is_refused(lapse):
    session = await created(lapse)
    await lapse.append_event(session, noted(id="e1"))
    with pytest.raises(ValueError, match="event id"):
        await lapse.append_event(session, spoken(id="e1"))
    await lapse.append_event(session, spoken("mine", id="e2"))
    assert texts(await got(lapse, session.id)) == ["mine"]


async def test_other_sessions_may_have_an_event_of_the_same_id(service):
    for user in ("ada", "bob"):
        session = await created(service, user_id=user, session_id="s-1")
        await service.append_event(session, spoken(user, id="e1"))
    assert texts(await got(service, "s-1")) == ["ada"]
    assert texts(await got(service, "s-1", user_id="bob")) == ["bob"]
