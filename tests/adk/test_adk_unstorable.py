"""What agents and tools produce and no store can hold, at the service and in a real `Runner`."""

import json
import logging
from datetime import UTC, datetime

import pytest
from google.adk.agents import LlmAgent
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.tools.tool_context import ToolContext
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from adk_builders import APP, USER, create_session, get_session, message_event, state_event
from adk_versions import is_before
from lapse import LapseSessionService
from lapse.adk.unstorable import storable
from lapse.core.documents import encode

NAN, INF = float("nan"), float("inf")
ODD = [
    ("page one\0page two", "page one\ufffdpage two"),
    ("file \udce9.txt", "file \ufffd.txt"),
    ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
    (NAN, None),
    (-INF, None),
    ({"a\0": {"\udce9": [1, NAN, "\0"]}}, {"a\ufffd": {"\ufffd": [1, None, "\ufffd"]}}),
    ({"\udce9": 1}, {"\ufffd": 1}),
    ({"t": (INF, "\0")}, {"t": [None, "\ufffd"]}),
]
SECRET = "a secret"


@pytest.fixture
async def service(open_store):
    async with LapseSessionService(await open_store()) as service:
        yield service


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    """Let every line of the log through."""
    monkeypatch.setattr(logging.getLogger("lapse.adk.unstorable"), "filters", [])


def warnings(caplog):
    return [line for line in caplog.records if line.name == "lapse.adk.unstorable"]


def response_event(response, tool="reader", **fields):
    """Return the event of a tool's response; the keyword `delta` is the state it has set."""
    answer = types.FunctionResponse(name=tool, response=response)
    event = message_event(author="agent", **fields)
    event.content = types.Content(role="user", parts=[types.Part(function_response=answer)])
    return event


def response_of(event):
    return event.content.parts[0].function_response.response


HAS_OUTPUT = not is_before("2.0")


def everywhere(value):
    """Return an agent's event that has a value in each place that an agent or a tool can fill."""
    event = response_event({"x": value}, delta={"own": value, "user:u": value, "app:a": value})
    event.custom_metadata = {"m": value}
    if HAS_OUTPUT:
        event.output = [value]
    event.actions.agent_state = {"s": value}
    return event


def places(event):
    return [
        response_of(event)["x"],
        *(event.actions.state_delta[name] for name in ("own", "user:u", "app:a")),
        event.custom_metadata["m"],
        event.output[0] if HAS_OUTPUT else event.custom_metadata["m"],
        event.actions.agent_state["s"],
    ]


@pytest.mark.parametrize("used", [True, False], ids=["used", "waiting"])
@pytest.mark.parametrize(("odd", "kept"), ODD, ids=ascii)
async def test_what_an_agent_made_and_no_store_can_hold_is_replaced_wherever_it_stands(
    service, caplog, odd, kept, used
):
    """Seen to fail with `written` instead of `written_storable`: the event is refused."""
    session = await create_session(service)
    if used:
        await service.append_event(session, message_event())
    event = everywhere(odd)
    assert await service.append_event(session, event) is event
    assert places(event) == [kept] * 7
    assert session.events[-1] is event
    assert session.state == {"own": kept, "user:u": kept, "app:a": kept}
    found = await get_session(service, session.id)
    assert places(found.events[-1]) == [kept] * 7
    assert found.state == session.state
    (line,) = warnings(caplog)
    assert "the tool reader made" in line.getMessage()
    assert (line.levelno, line.app, line.agent) == (logging.WARNING, APP, "agent")
    assert line.session == session.id[:8]
    # The session object is no older than what is stored.
    await service.append_event(session, message_event("and now?"))


@pytest.mark.parametrize(
    ("odd", "kept"), [({"\udce9": 1}, {"\ufffd": 1}), ({"k": NAN}, {"k": None})], ids=ascii
)
async def test_what_pydantic_replaces_by_itself_is_replaced_in_the_event_and_warned_of(
    service, caplog, odd, kept
):
    """Nothing refuses such an event. Seen to fail without each of the traces."""
    session = await create_session(service)
    event = response_event(odd)
    await service.append_event(session, event)
    found = await get_session(service, session.id)
    assert response_of(event) == response_of(found.events[-1]) == kept
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("odd", ["a secret \0", "a secret \udce9", {"a secret": NAN}], ids=ascii)
async def test_the_warning_says_nothing_of_the_content_and_names_the_agent_without_a_tool(
    service, caplog, odd
):
    session = await create_session(service)
    await service.append_event(session, message_event(author="poet", delta={"k": odd}))
    (line,) = warnings(caplog)
    assert line.getMessage().startswith("the agent made")
    assert line.agent == "poet"
    assert SECRET not in str(vars(line))


async def test_of_several_tools_the_warning_names_the_one_that_made_it(service, caplog):
    session = await create_session(service)
    event = response_event({"x": 1}, tool="clean")
    event.content.parts += response_event({"x": "\0"}, tool="odd").content.parts
    await service.append_event(session, event)
    event = response_event({"x": 1}, tool="writer", delta={"k": NAN})
    await service.append_event(session, event)
    assert [line.getMessage().split(" made")[0] for line in warnings(caplog)] == [
        "the tool odd",
        "the tool writer",
    ]


async def test_keys_of_state_are_replaced_in_the_session_object_too(service):
    """A tool has written its key there already. Seen to fail without its removal."""
    session = await create_session(service, state={"kept": 1})
    names = {"a\0": 1, "user:\udce9": 2, "app:b\0": 3}
    session.state.update(names)
    await service.append_event(session, message_event(author="agent", delta=dict(names)))
    found = await get_session(service, session.id)
    assert session.state == {"kept": 1, "a\ufffd": 1, "user:\ufffd": 2, "app:b\ufffd": 3}
    assert found.state == session.state


async def test_what_a_tool_keeps_is_not_changed(service):
    """Seen to fail with a copy that changes the tool's own dictionary."""
    session = await create_session(service)
    kept = {"pages": ["one\0"], "mean": NAN}
    event = response_event(kept, delta={"last": kept})
    await service.append_event(session, event)
    assert str(kept) == str({"pages": ["one\0"], "mean": NAN})
    assert response_of(event) == {"pages": ["one\ufffd"], "mean": None}


async def test_objects_beside_an_odd_value_are_stored_as_ever(service):
    session = await create_session(service)
    when = datetime(2026, 1, 2, tzinfo=UTC)
    delta = {"when": when, "odd": "\0", "bytes": b"%PDF \xff\0", "set": {"\0"}}
    await service.append_event(session, message_event(author="agent", delta=delta))
    found = await get_session(service, session.id)
    assert found.state == {
        "when": "2026-01-02T00:00:00Z",
        "odd": "\ufffd",
        "bytes": "%PDF \ufffd\ufffd",
        "set": ["\ufffd"],
    }
    assert session.state["when"] is when


async def test_an_object_that_json_cannot_express_becomes_its_text(service, caplog):
    """Seen to fail with objects left as they are: the event is refused."""
    session = await create_session(service)
    event = response_event({"x": object()})
    await service.append_event(session, event)
    found = await get_session(service, session.id)
    assert response_of(found.events[-1]) == response_of(event)
    assert response_of(event)["x"].startswith("<object object at")
    assert len(warnings(caplog)) == 1


async def test_an_upload_of_an_agent_keeps_its_bytes(service):
    session = await create_session(service)
    event = message_event("a picture\0", author="agent")
    event.content.parts.append(types.Part.from_bytes(data=b"\0\xff", mime_type="image/png"))
    await service.append_event(session, event)
    parts = (await get_session(service, session.id)).events[-1].content.parts
    assert (parts[0].text, parts[1].inline_data.data) == ("a picture\ufffd", b"\0\xff")


async def test_a_large_event_of_an_agent_is_treated_alike(service, caplog):
    session = await create_session(service)
    await service.append_event(session, response_event({"x": "page\0" * 100_000}))
    found = await get_session(service, session.id)
    assert response_of(found.events[-1]) == {"x": "page\ufffd" * 100_000}
    assert len(warnings(caplog)) == 1


async def test_the_summary_of_a_compaction_is_an_agents(service):
    session = await create_session(service)
    await service.append_event(session, message_event())
    content = types.Content(role="model", parts=[types.Part(text="in short\0")])
    compaction = EventCompaction(start_timestamp=1, end_timestamp=2, compacted_content=content)
    event = Event(author="user", invocation_id="c", actions=EventActions(compaction=compaction))
    await service.append_event(session, event)
    found = (await get_session(service, session.id)).events[-1]
    assert found.actions.compaction.compacted_content.parts[0].text == "in short\ufffd"


@pytest.mark.parametrize("make", [message_event, state_event], ids=["message", "state only"])
@pytest.mark.parametrize("odd", ["\0", "\udce9", NAN, INF, {"\0": 1}], ids=ascii)
async def test_what_a_client_asks_for_is_refused_as_ever(service, caplog, make, odd):
    """Seen to fail with every author's events replaced."""
    session = await create_session(service)
    before = session.model_copy(deep=True)
    with pytest.raises(ValueError, match=r"event|state"):
        await service.append_event(session, make(delta={"k": odd}))
    assert session == before
    assert (await get_session(service, session.id)).model_dump() == before.model_dump()
    assert warnings(caplog) == []


async def test_an_agents_event_that_contains_itself_is_refused(service):
    session = await create_session(service)
    loop = []
    loop.append(loop)
    event = message_event("\0", author="agent")
    event.custom_metadata = {"loop": loop}
    with pytest.raises(ValueError, match="event"):
        await service.append_event(session, event)
    assert (await get_session(service, session.id)).events == []


async def test_a_clean_event_of_an_agent_is_not_searched(service, monkeypatch):
    """Seen to fail with every agent's event searched."""
    monkeypatch.setattr("lapse.adk.unstorable._changed_fields", None)
    session = await create_session(service)
    event = response_event({"x": ["é", "\U0001f600", 1.5]}, delta={"k": {"a": 1}})
    await service.append_event(session, event)
    assert (await get_session(service, session.id)).state == {"k": {"a": 1}}


ODD_TEXT = st.text(st.characters(categories=["Cs", "L"]) | st.just("\0"), max_size=5)
ODD_JSON = st.recursive(
    st.none() | st.integers() | st.floats() | ODD_TEXT | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(ODD_TEXT, inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=8,
)


@given(ODD_JSON)
def test_whatever_is_made_storable_can_be_stored_and_is_left_alone_the_next_time(value):
    kept = storable(value, bytes_as_text=True)
    text = encode(kept, what="state") if not _has_bytes(kept) else "{}"
    assert storable(kept, bytes_as_text=True) is kept
    assert "\\u0000" not in text.replace("\\\\", "")


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
    )
)
def test_what_a_store_can_hold_is_returned_itself(value):
    assert storable(value) is value
    assert json.loads(encode(value, what="state")) == value


def _has_bytes(value):
    match value:
        case bytes():
            return True
        case dict():
            return any(map(_has_bytes, value.values()))
        case list() | tuple():
            return any(map(_has_bytes, value))
    return False


# In a run.


def nul() -> dict:
    """Return the text of a PDF."""
    return {"text": "page one\0page two"}


def surrogate() -> dict:
    """Return the name of a file."""
    return {"text": "file \udce9.txt"}


def nan() -> dict:
    """Return a mean of nothing."""
    return {"mean": NAN}


def note(tool_context: ToolContext) -> dict:
    """Put a mean of nothing into state, under an odd key as well."""
    tool_context.state["mean"] = NAN
    tool_context.state["odd\0"] = {"deep": ["\udce9", INF]}
    return {"n": 0}


class Scripted(BaseLlm):
    """Calls the tool that the message names, and says what the tool returned."""

    model: str = "scripted"

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - ADK's
        part = llm_request.contents[-1].parts[-1]
        if part.function_response:
            said = types.Part(text=f"heard {json.dumps(part.function_response.response)}\0")
        else:
            said = types.Part.from_function_call(name=part.text, args={})
        yield LlmResponse(content=types.Content(role="model", parts=[said]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tool", "heard"),
    [
        (nul, {"text": "page one\ufffdpage two"}),
        (surrogate, {"text": "file \ufffd.txt"}),
        (nan, {"mean": None}),
        (note, {"n": 0}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_run_whose_tool_returns_it_ends_with_the_answer(service, caplog, tool, heard):
    """The model hears what is stored. Seen to fail with `written`, which refuses."""
    agent = LlmAgent(name="reader", model=Scripted(), tools=[tool], output_key="said")
    runner = Runner(app_name=APP, agent=agent, session_service=service)
    session = await create_session(service)
    message = types.Content(role="user", parts=[types.Part(text=tool.__name__)])
    told = [
        event
        async for event in runner.run_async(
            user_id=USER, session_id=session.id, new_message=message
        )
    ]
    answer = f"heard {json.dumps(heard)}\ufffd"
    assert told[-1].content.parts[0].text == answer
    found = await get_session(service, session.id)
    assert [event.model_dump() for event in found.events[1:]] == [
        event.model_dump() for event in told
    ]
    state = {"mean": None, "odd\ufffd": {"deep": ["\ufffd", None]}} if tool is note else {}
    assert found.state == state | {"said": answer}
    assert [line.getMessage().split(" made")[0] for line in warnings(caplog)] == [
        f"the tool {tool.__name__}",
        "the agent",
    ]
