"""Who speaks in the sessions of a store: a sample of those that ADK's tables hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lapse.store.operation import Asking, Part, first, operation, rows

SAMPLE: Final = 1000
"""At most this many sessions are examined."""

_ALL: Final = 100.0


@dataclass(frozen=True, slots=True)
class Speakers:
    """How many sessions of an app were examined that have a message.

    `agent_only` is the number of those in which only the agent spoke.
    """

    app_name: str
    sessions: int
    agent_only: int

    @property
    def are_mostly_agents(self) -> bool:
        """Return whether only the agent spoke in most of enough sessions."""
        return self.sessions >= _ENOUGH and 2 * self.agent_only > self.sessions


_ENOUGH: Final = 10
"""Fewer sessions than this say nothing about an app."""


class SpeakerStore(Part):
    """Who speaks in the sessions that ADK's tables hold."""

    @operation(writes=False)
    def speakers(self) -> Asking[Sequence[Speakers]]:
        """Examine at most SAMPLE sessions, and return who speaks in those of each app.

        On PostgreSQL they are taken at random, on SQLite they are the newest.
        """
        about = yield from first("sessions_about")
        stored = 0 if about is None else about["sessions"]
        per_cent = _ALL if stored <= SAMPLE else _ALL * SAMPLE / stored
        found = yield from rows("speakers", per_cent=per_cent, most=SAMPLE)
        return [Speakers(row["app_name"], row["sessions"], row["agent_only"]) for row in found]
