"""Events read back equal those that ADK validates, and share nothing with other readers."""

from datetime import UTC, datetime

import pytest
from google.adk.auth.auth_credential import AuthCredential, AuthCredentialTypes
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types

from adk_versions import since_adk
from lapse.adk import events
from lapse.adk.translation import new_event
from lapse.store.records import EventRecord, JoinedEvents

WORDS = types.Content(role="user", parts=[types.Part(text="héllo 😀"), types.Part(text="")])
EVENTS = {
    "words": Event(author="user", invocation_id="e-1", content=WORDS),
    "call": Event(
        author="agent",
        content=types.Content(
            role="model",
            parts=[
                types.Part.from_function_call(name="book", args={"for": {"guests": [1, 2]}}),
                types.Part.from_function_response(name="book", response={"ok": True, "n": None}),
            ],
        ),
        long_running_tool_ids={"b", "a"},
    ),
    "bytes": Event(
        author="user",
        content=types.Content(
            parts=[types.Part.from_bytes(data=b"\xfb\xff\xfe", mime_type="image/png")]
        ),
    ),
    "actions": Event(
        author="agent",
        actions=EventActions(
            state_delta={"a": None, "app:b": {"c": [1.5, "x"]}},
            artifact_delta={"f.txt": 1},
            requested_tool_confirmations={"t": ToolConfirmation(hint="sure?")},
            transfer_to_agent="other",
            agent_state={"step": 1},
        ),
    ),
    "compaction": Event(
        author="user",
        actions=EventActions(
            compaction=EventCompaction(start_timestamp=1, end_timestamp=2, compacted_content=WORDS)
        ),
    ),
    "output": Event(
        author="agent",
        output={"any": ["thing", AuthCredentialTypes.API_KEY.value]},
        error_code="E1",
        custom_metadata={"k": {"v": 1}},
        usage_metadata=types.GenerateContentResponseUsageMetadata(total_token_count=3),
        output_transcription=types.Transcription(text="heard", finished=True),
        finish_reason=types.FinishReason.STOP,
    ),
}


def record_of(event: Event) -> EventRecord:
    return new_event(event).record


def parts_of(value: object) -> list[object]:
    """Return every mutable object inside a value."""
    if isinstance(value, dict):
        return [value, *(part for item in value.values() for part in parts_of(item))]
    if isinstance(value, list | set):
        return [value, *(part for item in value for part in parts_of(item))]
    if hasattr(value, "__pydantic_fields_set__"):
        return [value, *(part for item in vars(value).values() for part in parts_of(item))]
    return []


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_an_event_is_read_as_adk_reads_it_the_first_time_and_from_the_cache(event):
    record = record_of(event)
    as_adk = Event.model_validate_json(record.data)
    for _ in range(2):
        read = events.read_event(record)

        assert read == as_adk
        assert read.model_dump_json() == as_adk.model_dump_json()
        assert read.model_fields_set == as_adk.model_fields_set


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_two_readings_of_an_event_share_no_mutable_object(event):
    record = record_of(event)
    one, other = ({id(part) for part in parts_of(events.read_event(record))} for _ in range(2))
    # Kept alive, so that no identity is used twice.
    first, second = events.read_event(record), events.read_event(record)
    shared = {id(part) for part in parts_of(first)} & {id(part) for part in parts_of(second)}

    assert one
    assert other
    assert not shared


def test_changing_a_read_event_does_not_change_the_cached_one():
    record = record_of(EVENTS["words"])
    mine = events.read_event(record)
    mine.content.parts[0].text = "changed"
    mine.content.parts.append(types.Part(text="more"))
    mine.actions.state_delta["x"] = 1

    assert events.read_event(record) == Event.model_validate_json(record.data)


def test_ids_are_read_from_the_columns_and_the_time_from_the_json():
    text = '{"id": "in-json", "invocation_id": "in-json", "author": "user", "timestamp": 1.25}'
    read = events.read_event(EventRecord("e", "i", datetime(2030, 1, 1, tzinfo=UTC), text))

    assert (read.id, read.invocation_id, read.timestamp) == ("e", "i", 1.25)


@since_adk("2.0", "an event needs an author")
def test_an_event_without_data_takes_its_time_from_the_column():
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    read = events.read_event(EventRecord("e", "i", moment, ""))

    assert read.timestamp == moment.timestamp()


def test_a_long_event_is_not_cached():
    event = Event(author="user", content=types.Content(parts=[types.Part(text="x" * 20_000)]))
    before = events.REMEMBERED.kept.cache_info().currsize
    assert events.read_event(record_of(event)) == event
    assert events.REMEMBERED.kept.cache_info().currsize == before


def test_as_many_events_are_cached_as_the_setting_says():
    """Seen to fail with a cache that is made once, at import."""
    most = events.REMEMBERED.most
    records = [record_of(Event(author="agent", content=WORDS)) for _ in range(5)]
    try:
        events.REMEMBERED.keep(3)
        for record in records:
            events.read_event(record)
        assert events.REMEMBERED.kept.cache_info().currsize == 3
        events.REMEMBERED.keep(3)
        assert events.REMEMBERED.kept.cache_info().currsize == 3
        events.REMEMBERED.keep(0)
        assert events.read_event(records[0]).id == records[0].id
        assert events.REMEMBERED.kept.cache_info().currsize == 0
    finally:
        events.REMEMBERED.keep(most)


def test_credentials_in_a_request_are_read_back():
    event = Event(
        author="agent",
        content=WORDS,
        custom_metadata={
            "auth": AuthCredential(auth_type=AuthCredentialTypes.API_KEY, api_key="k").model_dump(
                mode="json"
            )
        },
    )

    assert events.read_event(record_of(event)).custom_metadata == event.custom_metadata


def test_what_adk_does_not_know_of_an_event_is_left_out_as_adk_leaves_it_out():
    text = '{"author": "user", "timestamp": 1.5, "unknown": {"a": [1]}, "id": "e"}'
    for _ in range(2):
        read = events.read_event(EventRecord("e", "", datetime(2030, 1, 1, tzinfo=UTC), text))
        assert read == Event.model_validate_json(text)


@pytest.fixture
def conversations():
    """Forget all conversations; return what remembers them, with room for ten events."""
    most = events.REMEMBERED.most
    events.REMEMBERED.keep(10)
    yield events.REMEMBERED.conversations
    events.REMEMBERED.keep(most)


def joined(*read: Event) -> JoinedEvents:
    records = [record_of(event) for event in read]
    text = "".join(f"{one.id} {one.data}" for one in records)
    return JoinedEvents(text.encode(), lambda _: records)


def words(text="hi") -> Event:
    return Event(author="user", content=types.Content(parts=[types.Part(text=text)]))


def test_a_conversation_is_read_as_its_events_are_whatever_an_earlier_reader_did(conversations):
    """Seen to fail with a cache of events instead of one of their copiers."""
    conversation = joined(*EVENTS.values())
    for _ in range(2):
        read = events.read_events(conversation)
        assert read == [Event.model_validate_json(one.data) for one in conversation]
        read[0].content.parts.clear()
        read.pop()

    assert conversations.events == len(EVENTS)


def test_a_conversation_that_was_read_before_is_not_split_again(conversations):
    def split(text: bytes):
        raise AssertionError(text)

    conversation = joined(words())
    first = events.read_events(conversation)
    assert events.read_events(JoinedEvents(conversation.text, split)) == first


def test_conversations_are_remembered_within_the_number_of_events_the_latest_first(conversations):
    """Seen to fail with a bound on conversations and not on their events, and with one that forgets
    the latest."""
    talks = [joined(*(words(f"{n} {m}") for m in range(4))) for n in range(4)]
    events.read_events(talks[0])
    events.read_events(talks[1])
    events.read_events(talks[0])
    events.read_events(talks[2])

    assert conversations.events == 8
    assert conversations.get(talks[0].text)
    assert conversations.get(talks[1].text) is None
    assert conversations.get(talks[2].text)
    events.read_events(joined(*(words() for _ in range(11))))
    assert (conversations.events, conversations.bytes) == (0, 0)


def test_conversations_are_remembered_within_the_size_of_their_texts(conversations):
    """Seen to fail without the bound on bytes."""
    talks = [joined(words("x" * 15_000)) for _ in range(4)]
    for talk in talks:
        events.read_events(talk)

    assert conversations.bytes == sum(len(talk.text) for talk in talks[2:])
    assert conversations.get(talks[3].text)


@pytest.mark.parametrize(
    "read",
    [[words("x" * 20_000)], [words("x" * 15_000) for _ in range(20)]],
    ids=["a long event", "a long text"],
)
@pytest.mark.usefixtures("conversations")
def test_a_long_conversation_is_read_without_being_remembered(read):
    events.REMEMBERED.keep(1000)
    conversation = joined(*read)

    assert events.read_events(conversation) == read
    assert events.REMEMBERED.conversations.events == 0


def test_no_conversation_is_remembered_where_no_event_is(conversations):
    most = events.REMEMBERED.most
    events.REMEMBERED.keep(0)
    try:
        conversation = joined(words())
        assert len(events.read_events(conversation)) == 1
        assert events.REMEMBERED.conversations.events == 0
    finally:
        events.REMEMBERED.keep(most)
