"""What counts as a message."""

import pytest

from lapse.core.errors import InvalidValueError
from lapse.core.messages import (
    UsedBy,
    UsedByRule,
    awaits_answer,
    is_message,
    is_message_of_user,
    is_of_agent,
    may_be_first,
)

WORDS = {"parts": [{"text": "hi"}]}
STATE = {"state_delta": {"a": 1}}

MESSAGES = {
    "the user's text": {"author": "user", "content": WORDS},
    "the user's empty text": {"author": "user", "content": {"parts": [{"text": ""}]}},
    "the user's file": {"author": "user", "content": {"parts": [{"file_data": {"file_uri": "x"}}]}},
    "a function's response": {
        "author": "user",
        "content": {"parts": [{"function_response": {"name": "f"}}]},
    },
    "the user's voice": {"author": "user", "input_transcription": {"text": "hi"}},
    "the user's text with state": {"author": "user", "content": WORDS, "actions": STATE},
    "the agent's text": {"author": "concierge", "content": WORDS},
    "the agent's call": {
        "author": "concierge",
        "content": {"parts": [{"function_call": {"name": "f"}}]},
    },
    "the agent's voice": {"author": "concierge", "output_transcription": {"text": "hi"}},
    "the agent's unfinished voice": {"author": "concierge", "output_transcription": {}},
    "the agent's output": {"author": "concierge", "output": {"a": 1}},
    "the agent's empty output": {"author": "concierge", "output": ""},
    "the agent's error": {"author": "concierge", "error_code": "SAFETY"},
    "text that nobody signed": {"content": WORDS},
}

OTHERS = {
    "nothing at all": {},
    "a change of state by the user": {"author": "user", "actions": STATE},
    "a change of state by the agent": {"author": "concierge", "actions": STATE},
    "a part of the agent's text": {"author": "concierge", "content": WORDS, "partial": True},
    "a part of the user's text": {"author": "user", "content": WORDS, "partial": True},
    "content without parts": {"author": "user", "content": {"parts": [], "role": "user"}},
    "no content": {"author": "user", "content": None},
    "silence of the user": {"author": "user", "input_transcription": {"text": ""}},
    "compaction": {"author": "user", "actions": {"compaction": {"start_timestamp": 1.0}}},
    "compaction with its summary": {
        "author": "user",
        "content": WORDS,
        "actions": {"compaction": {"compacted_content": WORDS}},
    },
    "rewind": {"author": "user", "actions": {"rewind_before_invocation_id": "e-1"}},
    "rewind with content": {
        "author": "user",
        "content": WORDS,
        "actions": {"rewind_before_invocation_id": "e-1"},
    },
    "a checkpoint": {"author": "concierge", "actions": {"agent_state": {"step": 1}}},
    "the end of an agent": {"author": "concierge", "actions": {"end_of_agent": True}},
    "an error without a code": {"author": "concierge", "error_message": "oh"},
}


RESPONSE = {"parts": [{"function_response": {"id": "f-1", "name": "f", "response": {}}}]}

AGENTS = {
    "text": {"author": "concierge", "content": WORDS},
    "a call": {"author": "concierge", "content": {"parts": [{"function_call": {"name": "f"}}]}},
    "the response of a tool that its run called": {
        "author": "concierge",
        "content": RESPONSE,
        "node_info": {"path": "concierge@1"},
    },
    "a failed call of the model": {"author": "concierge", "error_code": "SAFETY"},
    "voice": {"author": "concierge", "output_transcription": {"text": "hi"}},
    "output": {"author": "concierge", "output": {"a": 1}},
    "a change of state": {"author": "concierge", "actions": STATE},
    "a checkpoint": {"author": "concierge", "actions": {"agent_state": {"step": 1}}},
    "text that nobody signed": {"content": WORDS},
}

USERS = {name: event for name, event in MESSAGES.items() if event.get("author") == "user"} | {
    "a background job's function response": {"author": "concierge", "content": RESPONSE},
    "a job's response, with what ADK adds": {
        "author": "job",
        "content": RESPONSE | {"role": "user"},
        "node_info": {"path": ""},
    },
    "a function's response among texts": {
        "author": "job",
        "content": {"parts": [{"text": "done"}, *RESPONSE["parts"]]},
    },
}


@pytest.mark.parametrize("event", AGENTS.values(), ids=AGENTS)
def test_an_event_with_these_parts_is_the_agents_and_no_message_of_the_user(event):
    """Seen to fail with every response of a function counted as the user's."""
    assert is_of_agent(event)
    assert not is_message_of_user(event)


@pytest.mark.parametrize("event", USERS.values(), ids=USERS)
def test_an_event_with_these_parts_is_a_message_of_the_user(event):
    """Seen to fail with a rule that asks for the author alone."""
    assert not is_of_agent(event)
    assert is_message_of_user(event)


@pytest.mark.parametrize("event", OTHERS.values(), ids=OTHERS)
def test_what_is_no_message_is_no_message_of_the_user(event):
    assert not is_message_of_user(event)


ANYONE, USER = UsedBy.ANYONE, UsedBy.USER


@pytest.mark.parametrize(
    ("text", "of_shop", "of_zoo"),
    [
        ("anyone", ANYONE, ANYONE),
        ("user", USER, USER),
        ("anyone,shop=user", USER, ANYONE),
        (" user , shop = anyone ", ANYONE, USER),
        ("shop=user", USER, ANYONE),
        ("shop=user,zoo=user,anyone", USER, USER),
    ],
)
def test_a_rule_is_read_from_text(text, of_shop, of_zoo):
    rule = UsedByRule.parse(text)
    assert (rule.of("shop"), rule.of("zoo")) == (of_shop, of_zoo)
    assert UsedByRule.parse(str(rule)) == UsedByRule.parse(rule) == rule


RULES = "must be anyone or user, with exceptions by app, such as anyone,shop=user"


@pytest.mark.parametrize("text", ["", "users", "shop", "shop=", "=user", None, 1])
def test_what_is_no_rule_is_refused_with_the_way_out(text):
    with pytest.raises(InvalidValueError) as refused:
        UsedByRule.parse(text)
    assert refused.value.field == "used_by"
    assert refused.value.reason == f"{RULES}, not {text!r}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("user,anyone", "names no app twice: 'user,anyone'"),
        ("user,", "names no app twice: 'user,'"),
        ("a=user,a=user", "names 'a' twice: 'a=user,a=user'"),
    ],
)
def test_two_rules_for_the_same_are_refused(text, reason):
    with pytest.raises(InvalidValueError) as refused:
        UsedByRule.parse(text)
    assert (refused.value.field, refused.value.reason) == ("used_by", reason)


@pytest.mark.parametrize("event", MESSAGES.values(), ids=MESSAGES)
def test_an_event_with_these_parts_is_a_message(event):
    assert is_message(event)


@pytest.mark.parametrize("event", OTHERS.values(), ids=OTHERS)
def test_an_event_with_these_parts_is_not_a_message(event):
    assert not is_message(event)


@pytest.mark.parametrize(
    ("message", "may"),
    [
        (WORDS, True),
        ({"parts": [{"text": "hi", "functionCall": None, "function_response": None}]}, True),
        ({"parts": [{}]}, True),
        ({"parts": []}, False),
        ({"parts": None}, False),
        ({}, False),
        (None, False),
        ([WORDS], False),
        ({"parts": ["hi"]}, False),
        *(
            ({"parts": [{"text": "hi"}, {name: {"name": "f"}}]}, False)
            for name in ("functionCall", "function_call", "functionResponse", "function_response")
        ),
    ],
)
def test_a_run_can_begin_with_a_message_that_has_parts_and_no_function(message, may):
    assert may_be_first(message) is may


@pytest.mark.parametrize(
    ("event", "awaits"),
    [
        ({}, False),
        ({"actions": None}, False),
        ({"actions": {"requested_tool_confirmations": {}}, "long_running_tool_ids": []}, False),
        ({"actions": {"requested_tool_confirmations": {"f-1": {}}}}, True),
        ({"actions": STATE, "long_running_tool_ids": ["f-1"]}, True),
    ],
)
def test_an_event_awaits_an_answer_to_a_confirmation_or_to_a_long_call(event, awaits):
    assert awaits_answer(event) is awaits
