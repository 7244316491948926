"""Frames: the server-sent events of a run's stream, as ADK's `/run_sse` writes them, plus ids."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from lapse.adk.events import read_event
from lapse.adk.private.wire import public_fields
from lapse.runs.cursor import cursor_at_end, cursor_within
from lapse.runs.store import RunStatus
from lapse.store.records import EventRecord

if TYPE_CHECKING:
    from lapse.adk.events import Event

HEARTBEAT: Final = b": alive\n\n"

ID: Final = b"id: "
DATA: Final = b"data: "
ENDINGS: Final = (b"event: done", b"event: error")
"""The first line of a run's last frame: if the run succeeded, and if not."""

_ERRORS: Final = {
    RunStatus.FAILED: ("RunFailedError", "the run failed"),
    RunStatus.CANCELLED: ("RunCancelledError", "the run was cancelled"),
    RunStatus.TIMED_OUT: ("RunTimedOutError", "the run took longer than allowed"),
    RunStatus.INTERRUPTED: ("RunInterruptedError", "the process of the run died"),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stream.

    Attributes:
        id: its cursor.
        data: its bytes.
        event_id: the stored event of which this is the last frame; None for any other frame.
    """

    id: str
    data: bytes
    event_id: str | None

    @classmethod
    def of(cls, frame_id: str, data: str, event_id: str | None = None) -> Frame:
        """Make a frame of `data`, which is a frame of ADK's, by putting an id before it."""
        return cls(frame_id, f"id: {frame_id}\n{data}".encode(), event_id)


def stored_frames(record: EventRecord, anchor: str) -> list[Frame]:
    """Return the frames of a stored event as `/run_sse` sent them when the event was new.

    `anchor` is the id of the stored event before this one, or of the run if this is the first.
    """
    *first, last = _public(read_event(record))
    return [
        *(Frame.of(cursor_within(anchor), text) for text in first),
        Frame.of(record.id, last, record.id),
    ]


def is_split(event: Event) -> bool:
    """Return whether ADK sends an event in two frames, with the artifacts in the second."""
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
    """Return the JSON object of a frame of ADK's."""
    said: Mapping[str, Any] = json.loads(data.removeprefix("data:"))
    return said


def error_of(status: RunStatus, reason: str | None = None) -> Mapping[str, Any] | None:
    """Return the error of a run that ended with `status`, in ADK's shape; None for DONE."""
    if status not in _ERRORS:
        return None
    kind, text = _ERRORS[status]
    return error_object(kind, reason or text)


def error_object(kind: str, text: str) -> Mapping[str, Any]:
    """Return an error in ADK's shape."""
    return {
        "error": f"{kind}: {text}",
        "error_details": {
            "error_type": kind,
            "error_message": text,
            "timestamp": time.time(),
        },
    }


def cut_frame() -> bytes:
    """Return ADK's frame of an error that says that the stream ends before its run does."""
    said = error_object("ShuttingDownError", "this server is shutting down; ask another one")
    return f"data: {json.dumps(said)}\n\n".encode()


def ending(run_id: str, status: RunStatus, error: Mapping[str, Any] | None) -> Frame:
    """Return a run's last frame."""
    if status is RunStatus.DONE:
        name, said = "done", {"runId": run_id, "status": str(status)}
    else:
        name, said = "error", dict(error or error_of(status) or {})
    frame_id = cursor_at_end(run_id)
    text = f"event: {name}\nid: {frame_id}\ndata: {json.dumps(said)}\n\n"
    return Frame(frame_id, text.encode(), None)
