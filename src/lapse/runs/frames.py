"""Frames: what goes over the wire of a run, as ADK's `/run_sse` writes it, with ids."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from lapse.adk.events import read_event
from lapse.adk.private import public_fields
from lapse.runs.cursor import place_at_end, place_within
from lapse.runs.store import RunStatus
from lapse.store.records import EventRecord

if TYPE_CHECKING:
    from lapse.adk.events import Event

HEARTBEAT: Final = b": alive\n\n"

_ERRORS: Final = {
    RunStatus.FAILED: ("RunFailedError", "the run failed"),
    RunStatus.CANCELLED: ("RunCancelledError", "the run was cancelled"),
    RunStatus.TIMED_OUT: ("RunTimedOutError", "the run took longer than it may"),
    RunStatus.INTERRUPTED: ("RunInterruptedError", "the process that ran it died"),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stream: its id, its bytes, and the stored event that is whole with it."""

    id: str
    data: bytes
    event_id: str | None

    @classmethod
    def of(cls, frame_id: str, data: str, event_id: str | None = None) -> Frame:
        """Put an id before `data`, a frame as ADK writes it."""
        return cls(frame_id, f"id: {frame_id}\n{data}".encode(), event_id)


def stored_frames(record: EventRecord, anchor: str) -> list[Frame]:
    """Return a stored event's frames, as `/run_sse` sent them when it was new.

    `anchor` is the stored event before it, or the run.
    """
    *first, last = _public(read_event(record))
    return [
        *(Frame.of(place_within(anchor), text) for text in first),
        Frame.of(record.id, last, record.id),
    ]


def is_split(event: Event) -> bool:
    """Return whether ADK sends an event in two frames, its artifacts in the second."""
    return bool(event.actions.artifact_delta and event.content and event.content.parts)


def _public(event: Event) -> list[str]:
    """Write an event as ADK's server does."""
    shown = [event]
    if is_split(event):
        words, artifacts = event.model_copy(deep=True), event.model_copy(deep=True)
        words.actions.artifact_delta = {}
        artifacts.content = None
        shown = [words, artifacts]
    return [f"data: {to_json(public_fields(one)).decode()}\n\n" for one in shown]


def read_frame(data: str) -> Mapping[str, Any]:
    """Return what a frame of ADK's says."""
    said: Mapping[str, Any] = json.loads(data.removeprefix("data:"))
    return said


def is_error(said: Mapping[str, Any]) -> bool:
    """Return whether a frame of ADK's is no event but says what went wrong."""
    return "error_details" in said and "id" not in said


def error_of(status: RunStatus, reason: str | None = None) -> Mapping[str, Any] | None:
    """Return what a run's end says, in ADK's shape; None for a good one."""
    if status not in _ERRORS:
        return None
    kind, text = _ERRORS[status]
    return {
        "error": f"{kind}: {reason or text}",
        "error_details": {
            "error_type": kind,
            "error_message": reason or text,
            "timestamp": time.time(),
        },
    }


def ending(run_id: str, status: RunStatus, error: Mapping[str, Any] | None) -> Frame:
    """Return a run's last frame."""
    if status is RunStatus.DONE:
        name, said = "done", {"runId": run_id, "status": str(status)}
    else:
        name, said = "error", dict(error or error_of(status) or {})
    frame_id = place_at_end(run_id)
    text = f"event: {name}\nid: {frame_id}\ndata: {json.dumps(said)}\n\n"
    return Frame(frame_id, text.encode(), None)
