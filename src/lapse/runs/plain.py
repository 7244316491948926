"""Runs on ADK's own routes, which end with their connection, and the readers of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lapse.core.errors import TooManyRunsError, too_many_runs
from lapse.core.keys import SessionKey
from lapse.runs.metrics import RunMetrics
from lapse.runs.rules import RunLimits

if TYPE_CHECKING:
    from lapse.adk.events import Event

PLAIN_RUN: Final = "lapse.plain_run"
"""Where the scope of a request for a run has its `PlainRun`."""


class PlainRun:
    """A run on one of ADK's own routes. It observes the appends of its own events.

    Attributes:
        message_stored: whether its message is stored. An error before that is about the request.
    """

    __slots__ = ("message_stored",)

    def __init__(self) -> None:
        self.message_stored = False

    async def before_append(self, event: Event) -> bool:  # noqa: ARG002 - it is stored as it is
        """Let the event be stored as it is."""
        return False

    def after_append(self, event: Event) -> None:  # noqa: ARG002 - the first event is the message
        """Note that the message is stored."""
        self.message_stored = True


class PlainRuns:
    """Counts runs on ADK's own routes, and readers of runs, within the limits of runs.

    Detached runs of this process count with the plain ones. The plain runs of other processes are
    not known here.

    Args:
        limits: how much of running this process does.
        metrics: where it is counted.
        detached: returns the sessions of the detached runs in this process, one for each run.
        hold: is called with the session of a run that begins; what it returns is called at the end.
    """

    def __init__(
        self,
        limits: RunLimits,
        metrics: RunMetrics,
        detached: Callable[[], Sequence[SessionKey]],
        hold: Callable[[SessionKey], Callable[[], None]],
    ) -> None:
        self._hold = hold
        self._limits = limits
        self._metrics = metrics
        self._detached = detached
        self._runs: Counter[tuple[str, str]] = Counter()
        self._readers: Counter[tuple[str, str]] = Counter()

    def of(self, key: SessionKey) -> int:
        """Return how many plain runs the user of a session has in flight in the session's app."""
        return self._runs[_user(key)]

    def check_process(self) -> None:
        """Raise TooManyRunsError if this process has the most runs that the limits allow."""
        most = self._limits.per_process
        if self._runs.total() + len(self._detached()) >= most:
            raise TooManyRunsError(
                f"this process has {most} runs in flight (LAPSE_RUNS_PER_PROCESS); try again when "
                "one has ended"
            )

    @contextmanager
    def run(self, key: SessionKey, route: str) -> Iterator[PlainRun]:
        """Count a run on one of ADK's own routes for as long as the block lasts.

        Raises:
            TooManyRunsError: this process or this user has the most runs that the limits allow.
        """
        self.check_process()
        detached = sum(_user(one) == _user(key) for one in self._detached())
        if self.of(key) + detached >= self._limits.per_user:
            raise too_many_runs(self._limits.per_user)
        self._metrics.count_plain(key.app_name, route)
        with _counted(self._runs, key):
            ended = self._hold(key)
            try:
                yield PlainRun()
            finally:
                ended()

    @contextmanager
    def reader(self, key: SessionKey) -> Iterator[None]:
        """Count a reader of a detached run for as long as the block lasts.

        A user, and a process, may have as many readers as runs.

        Raises:
            TooManyRunsError: this process or this user has the most readers that the limits allow.
        """
        if self._readers[_user(key)] >= self._limits.per_user:
            most = self._limits.per_user
            raise TooManyRunsError(
                f"this user has {most} readers of runs (LAPSE_RUNS_PER_USER); close one first"
            )
        if self._readers.total() >= self._limits.per_process:
            raise TooManyRunsError(
                f"this process has {self._limits.per_process} readers of runs "
                "(LAPSE_RUNS_PER_PROCESS); try again when one has ended"
            )
        with _counted(self._readers, key):
            yield


def _user(key: SessionKey) -> tuple[str, str]:
    return key.app_name, key.user_id


@contextmanager
def _counted(counter: Counter[tuple[str, str]], key: SessionKey) -> Iterator[None]:
    user = _user(key)
    counter[user] += 1
    try:
        yield
    finally:
        counter[user] -= 1
        if not counter[user]:
            del counter[user]
