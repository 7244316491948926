"""What counts as a message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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


def awaits_answer(event: Mapping[str, Any]) -> bool:
    """Return whether an event waits for a confirmation of a tool's call, or for a long call."""
    actions = event.get("actions") or {}
    return bool(actions.get("requested_tool_confirmations") or event.get("long_running_tool_ids"))
