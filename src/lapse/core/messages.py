"""What counts as a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_OF_FUNCTIONS: Final = ("functionCall", "function_call", "functionResponse", "function_response")


def is_message(event: Mapping[str, Any]) -> bool:
    """Return whether an event makes its session used.

    `event` is an ADK event as stored: snake_case keys, absent values left out. A message
    carries content of the user or of the agent. State changes, compaction, rewind,
    checkpoints and partial events are not messages, whoever their author is.
    """
    if event.get("partial"):
        return False
    parts = (event.get("content") or {}).get("parts")
    if event.get("author") == "user":
        actions = event.get("actions") or {}
        if actions.get("compaction") or actions.get("rewind_before_invocation_id"):
            return False
        heard = (event.get("input_transcription") or {}).get("text")
        return bool(heard or parts)
    return bool(
        parts
        or event.get("output_transcription") is not None
        or event.get("output") is not None
        or event.get("error_code")
    )


def may_be_first(message: object) -> bool:
    """Return whether a message that a client sends to a run can be the first of its session.

    `message` is ADK's `Content` as JSON, in either spelling. ADK's runner refuses a message without
    parts and one that calls a function, and looks for the call that a message answers. It refuses
    after it has read the session.
    """
    parts = message.get("parts") if isinstance(message, Mapping) else None
    return bool(parts) and all(
        isinstance(part, Mapping) and all(part.get(name) is None for name in _OF_FUNCTIONS)
        for part in parts or ()
    )


def awaits_answer(event: Mapping[str, Any]) -> bool:
    """Return whether an event waits for a confirmation of a tool's call, or for a long call."""
    actions = event.get("actions") or {}
    return bool(actions.get("requested_tool_confirmations") or event.get("long_running_tool_ids"))
