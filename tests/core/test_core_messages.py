"""What counts as a message."""

import pytest

from lapse.core.messages import is_message

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


@pytest.mark.parametrize("event", MESSAGES.values(), ids=MESSAGES)
def test_an_event_with_these_parts_is_a_message(event):
    assert is_message(event)


@pytest.mark.parametrize("event", OTHERS.values(), ids=OTHERS)
def test_an_event_with_these_parts_is_not_a_message(event):
    assert not is_message(event)
