"""Cursors: positions in a run's stream.

The `id:` of each frame is a cursor, and a client resumes after it by sending it as `Last-Event-ID`.

| cursor | frame |
|---|---|
| `EVENT` | the last frame of a stored event: the event's id, which every process can look up |
| `EVENT~3` | the third partial frame after that event; partial frames are never stored |
| `EVENT~0` | the first of the two frames that ADK sends for the next stored event |
| `RUN~3`, `RUN~0` | the same, before the first stored event of a run |
| `RUN~end` | the end of a run |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from lapse.core.errors import InvalidValueError

_MARK: Final = "~"
_END: Final = "end"
_WITHIN_EVENT: Final = "0"
_LONGEST: Final = 160


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a run's stream.

    Attributes:
        text: the cursor on the wire.
        anchor: the id of the stored event at or before this position; before the first stored
            event, and at the end of the run, the id of the run.
        is_end: whether this is the end of the run.
        is_within_event: whether this is between the two frames of the next stored event.
    """

    text: str
    anchor: str
    is_end: bool = False
    is_within_event: bool = False

    @classmethod
    def of_event(cls, event_id: str) -> Self:
        """Return the cursor of a stored event."""
        return cls(event_id, event_id)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the header `Last-Event-ID`.

        Raises:
            InvalidValueError: the text cannot be the id of a frame.
        """
        anchor, mark, rest = text.rpartition(_MARK)
        if not mark or not (rest == _END or rest.isdecimal()):
            anchor, rest = text, ""
        if not anchor or len(text) > _LONGEST or not anchor.isprintable():
            reason = f"must be an id that the stream has sent, not {text!r:.40}"
            raise InvalidValueError("Last-Event-ID", reason)
        return cls(text, anchor, rest == _END, rest == _WITHIN_EVENT)


def cursor_after(anchor: str, count: int) -> str:
    """Return the id of the `count`-th partial frame after a stored event or the run's start."""
    return f"{anchor}{_MARK}{count}"


def cursor_at_end(run_id: str) -> str:
    """Return the id of a run's last frame."""
    return f"{run_id}{_MARK}{_END}"


def cursor_within(anchor: str) -> str:
    """Return the id of the first of two frames of the stored event that follows `anchor`."""
    return f"{anchor}{_MARK}{_WITHIN_EVENT}"
