"""Events of ADK's schema version 0 in the form in which version 1 keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lapse.core.errors import InvalidValueError

if TYPE_CHECKING:
    from pydantic import ValidationError

_PLAIN: Final = (
    "id", "invocation_id", "author", "branch", "timestamp", "long_running_tool_ids", "partial",
    "turn_complete", "error_code", "error_message", "interrupted",
)  # fmt: skip
"""The fields of an event that schema version 0 keeps in columns as they are."""


def event_document(fields: Mapping[str, Any], actions: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the `event_data` that ADK's version 1 would keep of an event.

    It is what ADK makes of the event when it reads it from version 0 and stores it in version 1,
    and was read back once: version 1 gives the same event for it.

    Args:
        fields: the event's columns, JSON decoded, and `timestamp` as seconds since the epoch.
        actions: the fields of its actions, or None.

    Raises:
        InvalidValueError: ADK does not take the event. It names the field, and nothing of what
            stands in it.
    """
    from google.adk.events.event import Event
    from google.adk.events.event_actions import EventActions
    from google.genai import types
    from pydantic import ValidationError
    from pydantic_core import PydanticSerializationError

    models: Mapping[str, Any] = {
        "content": types.Content,
        "grounding_metadata": types.GroundingMetadata,
        "usage_metadata": types.GenerateContentResponseUsageMetadata,
        "citation_metadata": types.CitationMetadata,
        "input_transcription": types.Transcription,
        "output_transcription": types.Transcription,
    }
    name = "actions"
    try:
        made: dict[str, Any] = {
            "actions": EventActions.model_validate(actions) if actions else EventActions()
        }
        for name, model in models.items():
            value = fields.get(name)
            # ADK takes a text, a number or a list in such a column for nothing.
            made[name] = model.model_validate(value) if isinstance(value, dict) else None
        name = "event"
        metadata = fields.get("custom_metadata")
        event = Event(
            **{field: fields.get(field) for field in _PLAIN},
            **made,
            custom_metadata=metadata if isinstance(metadata, dict) else None,
        )
        document: dict[str, Any] = event.model_dump(exclude_none=True, mode="json")
        again = Event.model_validate(document)
    except ValidationError as error:
        raise InvalidValueError(name, f"ADK does not take {_told(name, error)}") from None
    except PydanticSerializationError:
        raise InvalidValueError(name, f"ADK cannot write its {name} as JSON") from None
    if again.model_dump(exclude_none=True, mode="json") != document:
        raise InvalidValueError(name, "version 1 would read it as another event")
    return document


def _told(name: str, error: ValidationError) -> str:
    """Return which field is wrong, and how: never what stands in it, nor what a key in it is."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"its {name} ({first['type']})"
