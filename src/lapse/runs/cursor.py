"""Places in a run's stream: what the `id:` of a frame says, and a client gives back.

A stored event's frame has the event's own id, so that its place is known wherever the events are.
Whatever is only ever on the wire (partial text) is counted from the stored event before it, or from
the run's beginning: `EVENT~3`. `EVENT~0` is that of the first of two frames of the next stored
event. The end of a run has `RUN~end`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from lapse.core.errors import InvalidValueError

_MARK: Final = "~"
_END: Final = "end"
_HALF: Final = "0"
_LONGEST: Final = 160


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a stream.

    Attributes:
        text: as it stands on the wire.
        anchor: the id of the stored event that it is at or after; at a run's beginning, and its
            end, the id of the run.
        is_end: whether it is the run's end.
        is_half: whether it is between the two frames of the next stored event.
    """

    text: str
    anchor: str
    is_end: bool = False
    is_half: bool = False

    @classmethod
    def of_event(cls, event_id: str) -> Self:
        """Return the place of a stored event."""
        return cls(event_id, event_id)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a `Last-Event-ID`.

        Raises:
            InvalidValueError: no frame ever had such an id.
        """
        anchor, mark, rest = text.rpartition(_MARK)
        if not mark or not (rest == _END or rest.isdecimal()):
            anchor, rest = text, ""
        if not anchor or len(text) > _LONGEST or not anchor.isprintable():
            reason = f"must be the id of an event of the stream, not {text!r:.40}"
            raise InvalidValueError("Last-Event-ID", reason)
        return cls(text, anchor, rest == _END, rest == _HALF)


def place_after(anchor: str, count: int) -> str:
    """Return the id of the `count`-th frame after a stored event, or a run's beginning."""
    return f"{anchor}{_MARK}{count}"


def place_at_end(run_id: str) -> str:
    """Return the id of a run's last frame."""
    return f"{run_id}{_MARK}{_END}"


def place_within(anchor: str) -> str:
    """Return the id of the first of two frames of the stored event after another one."""
    return f"{anchor}{_MARK}{_HALF}"
