"""`get_session`, `list_sessions` and `get_user_state`, by ADK's contract."""

from __future__ import annotations

import pytest
from google.adk.sessions.base_session_service import GetSessionConfig

from adk_builders import (
    APP,
    USER,
    create_session,
    delete_session,
    get_session,
    message_event,
    state_event,
    texts,
)
from adk_versions import since_adk


async def test_a_session_that_was_never_created_reads_as_none(service):
    await create_session(service, session_id="s-1")
    assert await get_session(service, "s-2") is None
    assert await get_session(service, "s-1", user_id="bob") is None
    assert await get_session(service, "s-1", app_name="other") is None


async def test_a_session_reads_back_equal_to_what_create_returned(service):
    state = {"k": {"deep": [1, 2.5, None, "é"]}, "app:a": True, "user:u": "x"}
    session = await create_session(service, state=state)
    assert await get_session(service, session.id) == session


async def test_a_session_is_listed_equal_to_what_create_returned(service):
    """Seen to fail with a marker that tells, in some answers, that the session waits."""
    session = await create_session(service, state={"k": 1})
    (listed,) = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
    assert listed == session == await get_session(service, session.id)


@pytest.mark.parametrize("message", [False, True])
async def test_a_session_reads_back_equal_to_the_object_that_was_appended_to(service, message):
    session = await create_session(service, state={"k": 1})
    make = message_event if message else state_event
    await service.append_event(session, make(delta={"k": 2, "app:a": 1, "user:u": 1}))
    await service.append_event(session, make(delta={"l": [3]}))
    assert await get_session(service, session.id) == session


async def conversation(service, make):
    session = await create_session(service)
    for number in range(1, 6):
        event = make(delta={"n": number}, id=f"e{number}", timestamp=1000.0 + number)
        await service.append_event(session, event)
    return session.id


@pytest.mark.parametrize(
    "make", [message_event, state_event], ids=["in ADK's tables", "in the lobby"]
)
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "e1 e2 e3 e4 e5"),
        (GetSessionConfig(), "e1 e2 e3 e4 e5"),
        (GetSessionConfig(num_recent_events=0), ""),
        (GetSessionConfig(num_recent_events=2), "e4 e5"),
        (GetSessionConfig(num_recent_events=99), "e1 e2 e3 e4 e5"),
        (GetSessionConfig(after_timestamp=1003.0), "e3 e4 e5"),
        (GetSessionConfig(after_timestamp=1003.000001), "e4 e5"),
        (GetSessionConfig(after_timestamp=0.0), "e1 e2 e3 e4 e5"),
        (GetSessionConfig(after_timestamp=2000.0), ""),
        (GetSessionConfig(after_timestamp=1002.0, num_recent_events=2), "e4 e5"),
        (GetSessionConfig(after_timestamp=1005.0, num_recent_events=3), "e5"),
        (GetSessionConfig(after_timestamp=1002.0, num_recent_events=0), ""),
    ],
)
async def test_the_config_chooses_events_and_never_changes_the_state(
    service, make, config, expected
):
    session = await get_session(service, await conversation(service, make), config=config)
    assert " ".join(event.id for event in session.events) == expected
    assert session.state == {"n": 5}
    assert session.last_update_time == 1005.0


@since_adk("2.8", "ADK takes it")
def test_a_negative_number_of_events_is_refused():
    with pytest.raises(ValueError, match="num_recent_events"):
        GetSessionConfig(num_recent_events=-1)


@pytest.mark.parametrize(
    "make", [message_event, state_event], ids=["in ADK's tables", "in the lobby"]
)
async def test_events_are_ordered_by_time_then_id(database_service, make):
    session = await create_session(database_service)
    for name, timestamp in [("b", 1002.0), ("c", 1002.0), ("a", 1002.0), ("early", 1001.0)]:
        await database_service.append_event(session, make(id=name, timestamp=timestamp))
    after = await get_session(database_service, session.id)
    assert [event.id for event in after.events] == ["early", "a", "b", "c"]
    last = await get_session(
        database_service, session.id, config=GetSessionConfig(num_recent_events=2)
    )
    assert [event.id for event in last.events] == ["b", "c"]


async def test_timestamps_read_back_exactly(service):
    session = await create_session(service)
    moments = [1763800000.1234567, 1761444000.0000001, 0.1]
    for moment in moments:
        await service.append_event(session, message_event(timestamp=moment))
    after = await get_session(service, session.id)
    assert sorted(event.timestamp for event in after.events) == sorted(moments)


async def test_an_event_reads_back_with_all_its_parts(service):
    session = await create_session(service)
    event = message_event(
        "h\u00e9llo 🙂", author="concierge", branch="a.b", turn_complete=True, delta={"k": None}
    )
    event.custom_metadata = {"deep": {"list": [1, None]}}
    event.long_running_tool_ids = {"b", "a"}
    event.actions.artifact_delta = {"file": 3}
    event.content.parts[0].thought_signature = b"\xfb\xff\xfe\x00"
    await service.append_event(session, event)
    assert (await get_session(service, session.id)).events == [event]


async def test_a_long_history_that_a_thread_parses_reads_back_whole(lapse):
    session = await create_session(lapse)
    for number in range(502):
        await lapse.append_event(session, message_event(str(number), timestamp=1000.0 + number))
    assert texts(await get_session(lapse, session.id)) == [str(number) for number in range(502)]


async def test_the_listed_sessions_have_merged_state_and_no_events(sharing_service):
    session = await create_session(
        sharing_service, session_id="old", state={"k": 1, "app:a": 1, "user:u": 1}
    )
    await sharing_service.append_event(session, message_event(delta={"k": 2, "app:a": 2}))
    await create_session(sharing_service, session_id="new", state={"l": 1})
    listed = (await sharing_service.list_sessions(app_name=APP, user_id=USER)).sessions
    assert [found.events for found in listed] == [[], []]
    states = {found.id: found.state for found in listed}
    assert states == {
        "old": {"k": 2, "app:a": 2, "user:u": 1},
        "new": {"l": 1, "app:a": 2, "user:u": 1},
    }


async def test_the_list_puts_the_most_recent_session_last(service):
    sessions = [await create_session(service, session_id=name) for name in "abcd"]
    for session, moment in zip(sessions, [4000.0, 1000.0, 3000.0, 1000.0], strict=True):
        await service.append_event(session, message_event(timestamp=moment))
    newest = await create_session(service, session_id="0")
    listed = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
    assert [found.id for found in listed] == ["b", "d", "c", "a", "0"]
    assert listed[-1].last_update_time == newest.last_update_time


async def test_a_list_has_the_sessions_of_one_user_or_of_all_if_no_user_is_named(sharing_service):
    for user in ("ada", "bob"):
        session = await create_session(
            sharing_service, user_id=user, session_id=user, state={"user:name": user}
        )
        await sharing_service.append_event(session, message_event(timestamp=1000.0))
        await create_session(sharing_service, user_id=user, session_id=f"{user}-waits")
    await create_session(sharing_service, app_name="other", session_id="elsewhere")

    async def ids(user_id):
        response = await sharing_service.list_sessions(app_name=APP, user_id=user_id)
        return {found.id: found.state for found in response.sessions}

    assert set(await ids("ada")) == {"ada", "ada-waits"}
    everyone = await ids(None)
    assert set(everyone) == {"ada", "ada-waits", "bob", "bob-waits"}
    assert everyone["bob"] == everyone["bob-waits"] == {"user:name": "bob"}
    assert await ids("") == {}
    assert await ids("nobody") == {}


async def test_a_list_of_all_users_is_ordered_by_time_then_user_then_id(service):
    for user, name in [("bob", "a"), ("ada", "b"), ("ada", "a")]:
        session = await create_session(service, user_id=user, session_id=name)
        await service.append_event(session, message_event(timestamp=1000.0))
    listed = (await service.list_sessions(app_name=APP)).sessions
    assert [(s.user_id, s.id) for s in listed] == [("ada", "a"), ("ada", "b"), ("bob", "a")]


async def test_the_list_of_an_app_without_sessions_is_empty(service):
    assert (await service.list_sessions(app_name="none", user_id=USER)).sessions == []
    assert (await service.list_sessions(app_name="none")).sessions == []


async def test_the_keys_of_user_state_have_no_prefix(sharing_service):
    session = await create_session(sharing_service, state={"user:a": 1, "app:b": 2, "c": 3})
    await sharing_service.append_event(session, state_event({"user:d": [4]}))
    assert await sharing_service.get_user_state(app_name=APP, user_id=USER) == {"a": 1, "d": [4]}


async def test_an_unknown_users_state_is_empty(service):
    await create_session(service, state={"user:a": 1})
    assert await service.get_user_state(app_name=APP, user_id="bob") == {}
    assert await service.get_user_state(app_name="other", user_id=USER) == {}


async def test_a_users_state_is_a_fresh_dict_each_time(sharing_service):
    await create_session(sharing_service, state={"user:a": [1]})
    state = await sharing_service.get_user_state(app_name=APP, user_id=USER)
    state["b"] = 1
    state["a"].append(2)
    assert await sharing_service.get_user_state(app_name=APP, user_id=USER) == {"a": [1]}


async def test_a_users_state_outlives_their_sessions(sharing_service):
    session = await create_session(sharing_service, state={"user:a": 1, "app:b": 2})
    await delete_session(sharing_service, session.id)
    assert await sharing_service.get_user_state(app_name=APP, user_id=USER) == {"a": 1}
    assert (await create_session(sharing_service)).state == {"user:a": 1, "app:b": 2}


@pytest.mark.parametrize("odd", ["x" * 129, "nul\0", "half\ud800", ""])
async def test_an_impossible_id_reads_as_absent_without_an_error(lapse, odd):
    await create_session(lapse)
    assert await get_session(lapse, odd) is None
    assert await get_session(lapse, "s-1", user_id=odd) is None
    assert (await lapse.list_sessions(app_name=APP, user_id=odd)).sessions == []
    assert (await lapse.list_sessions(app_name=odd)).sessions == []
    assert await lapse.get_user_state(app_name=APP, user_id=odd) == {}
    await delete_session(lapse, odd)
