"""`create_session`, by ADK's contract."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta

import pytest
from google.adk.errors.already_exists_error import AlreadyExistsError

from adk_builders import (
    APP,
    USER,
    create_session,
    get_session,
    message_event,
    state_event,
    status_of,
)
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status


async def test_the_service_chooses_a_new_uuid_for_each_session(service):
    first, second = await create_session(service), await create_session(service)
    assert first.id != second.id
    assert uuid.UUID(first.id).version == 4
    assert uuid.UUID(second.id).version == 4


async def test_a_session_keeps_the_id_it_is_given(service):
    assert (await create_session(service, session_id="s-1")).id == "s-1"
    assert (await get_session(service, "s-1")).id == "s-1"


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
async def test_the_service_chooses_the_id_if_the_given_one_is_blank(stripping_service, blank):
    assert uuid.UUID((await create_session(stripping_service, session_id=blank)).id)


async def test_white_space_around_an_id_is_stripped(stripping_service):
    assert (await create_session(stripping_service, session_id="  s-1 ")).id == "s-1"
    assert (await get_session(stripping_service, "s-1")) is not None
    assert (await get_session(stripping_service, " s-1  ")).id == "s-1"


async def test_a_new_session_has_no_events_and_the_time_of_its_creation(service):
    before = time.time()
    session = await create_session(service)
    assert session.events == []
    assert before - 0.001 <= session.last_update_time <= time.time() + 0.001
    assert (session.app_name, session.user_id) == (APP, USER)


async def test_initial_state_goes_to_the_scope_that_its_prefix_names(sharing_service):
    state = {"own": 1, "app:shared": 2, "user:mine": 3, "temp:gone": 4}
    session = await create_session(sharing_service, state=state)
    assert session.state == {"own": 1, "app:shared": 2, "user:mine": 3}

    of_same_user = await create_session(sharing_service)
    of_other_user = await create_session(sharing_service, user_id="bob")
    of_other_app = await create_session(sharing_service, app_name="other")
    assert of_same_user.state == {"app:shared": 2, "user:mine": 3}
    assert of_other_user.state == {"app:shared": 2}
    assert of_other_app.state == {}


async def test_later_initial_state_replaces_values_key_by_key(sharing_service):
    await create_session(
        sharing_service, state={"app:a": {"deep": 1}, "app:b": 1, "user:u": [1, 2]}
    )
    session = await create_session(sharing_service, state={"app:a": {"other": 2}, "user:u": None})
    assert session.state == {"app:a": {"other": 2}, "app:b": 1, "user:u": None}


async def test_none_is_stored_as_a_value_of_state(service):
    session = await create_session(service, state={"k": None, "app:k": None, "user:k": None})
    assert session.state == {"k": None, "app:k": None, "user:k": None}
    assert (await get_session(service, session.id)).state == session.state


async def test_changing_a_returned_session_does_not_change_the_store(service):
    session = await create_session(service, state={"list": [1], "app:list": [1], "user:list": [1]})
    for key in ("list", "app:list", "user:list"):
        session.state[key].append(2)
    assert (await get_session(service, session.id)).state == {
        "list": [1],
        "app:list": [1],
        "user:list": [1],
    }


@pytest.mark.parametrize("used", [False, True])
async def test_an_id_in_use_is_refused_and_nothing_changes(service, used):
    session = await create_session(service, session_id="s-1", state={"k": 1, "app:a": 1})
    if used:
        await service.append_event(session, message_event("mine"))
    with pytest.raises(AlreadyExistsError):
        await create_session(service, session_id="s-1", state={"k": 2, "app:a": 2, "user:u": 2})
    after = await get_session(service, "s-1")
    assert after.state == {"k": 1, "app:a": 1}
    assert len(after.events) == used


async def test_already_exists_is_not_a_value_error(service):
    await create_session(service, session_id="s-1")
    with pytest.raises(AlreadyExistsError) as caught:
        await create_session(service, session_id="s-1")
    assert not isinstance(caught.value, ValueError)


async def test_the_same_id_may_be_used_by_other_users_and_apps(service):
    await create_session(service, session_id="s-1", state={"whose": "ada"})
    await create_session(service, session_id="s-1", user_id="bob", state={"whose": "bob"})
    await create_session(service, session_id="s-1", app_name="other", state={"whose": "other"})
    assert (await get_session(service, "s-1")).state == {"whose": "ada"}
    assert (await get_session(service, "s-1", user_id="bob")).state == {"whose": "bob"}
    assert (await get_session(service, "s-1", app_name="other")).state == {"whose": "other"}


async def test_exactly_one_of_many_concurrent_creations_of_one_id_succeeds(lapse):
    attempts = [create_session(lapse, session_id="s-1", state={"n": n}) for n in range(20)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    losers = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    (winner,) = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert {type(loser) for loser in losers} == {AlreadyExistsError}
    assert await get_session(lapse, "s-1") == winner


async def test_the_ttl_and_metadata_of_a_session_are_recorded(lapse):
    session = await create_session(lapse, ttl_minutes=0.5, metadata={"page": "home"})
    record = await lapse.lifecycle(SessionKey(APP, USER, session.id))
    assert record.status is Status.WAITING
    assert record.ttl == timedelta(seconds=30)
    assert record.expires_at == record.created_at + timedelta(seconds=30)
    assert record.metadata == {
        "kind": "canonical-session",
        "backend_created": True,
        "page": "home",
    }


async def test_metadata_says_that_the_caller_chose_the_id(lapse):
    session = await create_session(lapse, session_id="s-1", ttlMinutes=2)
    record = await lapse.lifecycle(SessionKey(APP, USER, session.id))
    assert record.metadata["backend_created"] is False
    assert record.ttl == timedelta(minutes=2)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("ttl_minutes", {"ttl_minutes": 0}),
        ("ttl_minutes", {"ttl_minutes": -1}),
        ("ttl_minutes", {"ttl_minutes": float("nan")}),
        ("ttl_minutes", {"ttl_minutes": float("inf")}),
        ("ttl_minutes", {"ttl_minutes": "5"}),
        ("ttl_minutes", {"ttl_minutes": True}),
        ("ttl_minutes", {"ttl_minutes": 366 * 24 * 60}),
        ("metadata", {"metadata": ["no", "object"]}),
        ("metadata", {"metadata": {"big": "x" * 16 * 1024}}),
        ("metadata", {"metadata": {"nul": "\0"}}),
        ("session id", {"session_id": "s" * 129}),
        ("session id", {"session_id": "nul\0"}),
        ("session id", {"session_id": "half\ud800"}),
        ("user id", {"user_id": "u" * 129}),
        ("user id", {"user_id": ""}),
        ("app name", {"app_name": "nul\0"}),
        ("state", {"state": {"k": float("nan")}}),
        ("state", {"state": {"k": "nul\0"}}),
        ("state", {"state": {"k": "half\ud800"}}),
        ("state", {"state": {"user:half\udfff": 1}}),
    ],
)
async def test_a_creation_with_a_value_that_no_store_can_hold_is_refused_and_the_value_named(
    lapse, field, arguments
):
    with pytest.raises(ValueError, match=field):
        await create_session(lapse, **{"session_id": "s-1", "state": {"app:a": 1}} | arguments)
    assert await get_session(lapse, "s-1") is None
    assert (await create_session(lapse, user_id="bob")).state == {}


async def test_an_id_of_128_characters_is_kept(lapse):
    longest = "é" * 128
    session = await create_session(lapse, session_id=longest)
    await lapse.append_event(session, message_event())
    assert (await get_session(lapse, longest)).id == longest


async def test_a_session_waits_until_its_first_message(lapse):
    session = await create_session(lapse)
    assert await status_of(lapse, session.id) is Status.WAITING
    await lapse.append_event(session, state_event({"k": 1}))
    assert await status_of(lapse, session.id) is Status.WAITING
    await lapse.append_event(session, message_event())
    assert await status_of(lapse, session.id) is Status.USED
