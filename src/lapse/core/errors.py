"""The errors Lapse raises. Each names the offending value and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class LapseError(Exception):
    """Base of every error that Lapse raises on purpose."""


class InvalidValueError(LapseError, ValueError):
    """A value from outside cannot be accepted; nothing was written.

    Attributes:
        field: the name of the offending field, as its user knows it.
        reason: what is wrong with it and what would be right.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class EventIdTakenError(InvalidValueError):
    """Another event of the session has this id."""


class SettingsError(LapseError, ValueError):
    """The settings are wrong; `problems` has one sentence for each fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{count} in the settings:\n{lines}")
        self.problems = tuple(problems)


class NoSuchSessionError(LapseError, LookupError):
    """The session does not exist: never created, purged, deleted or expired for good."""


def no_such_session(named: str) -> NoSuchSessionError:
    """Return the error that says a session does not exist; `named` is safe for logs."""
    return NoSuchSessionError(
        f"session {named} does not exist; check its id, its user and its app, or create it"
    )


class SessionExistsError(LapseError):
    """A living session already has this key."""


class OutdatedSessionError(LapseError):
    """The session was changed in the store since the writer last read it."""


def outdated(named: str) -> OutdatedSessionError:
    """Return an OutdatedSessionError; `named` is the name of the session that is safe for logs."""
    return OutdatedSessionError(
        f"session {named} was changed since it was read; read it again, and append to what you read"
    )


class SharedStateFullError(InvalidValueError):
    """The state of an app or of a user would outgrow its size; nothing was written.

    Attributes:
        prefixes: those of the keys that do not fit, `app:`, `user:` or both.
    """

    def __init__(self, prefixes: Sequence[str], largest: int) -> None:
        keys = " and ".join(f"{prefix} keys" for prefix in prefixes)
        super().__init__(
            "state",
            f"its {keys} would make the state that they belong to larger than {largest} bytes of "
            "JSON (LAPSE_MAX_SHARED_STATE_KIB)",
        )
        self.prefixes = tuple(prefixes)


class HeldEventsFullError(LapseError):
    """A waiting session holds as many events, or bytes of them, as it may; nothing was written."""


class WrongStatusError(LapseError):
    """The session exists, but its status does not allow what was asked for."""


class NotAsShownError(LapseError):
    """Somebody confirms something else than what was shown to them; nothing was written."""


class StoreUnavailableError(LapseError):
    """The store does not answer now; the operation may be repeated."""


class OutcomeUnknownError(StoreUnavailableError):
    """The store broke off, and may or may not have carried out the operation.

    The same operation may be repeated: see `lapse.store.operation`. A request over HTTP may do more
    than one.
    """


class OnItsWayError(StoreUnavailableError):
    """Another process moves the session into its service, or out of it; nothing was changed."""


class AnswerLostError(StoreUnavailableError):
    """The message of a run is stored, and an event of its agent is not, or may not be."""


class StoreRefusedError(LapseError):
    """The store cannot be used as it is: foreign, of another version, or not writable."""


class NotWithThisStoreError(LapseError):
    """The store does not offer this operation; `statement` is the name of a statement it lacks."""

    def __init__(self, statement: str) -> None:
        super().__init__(
            f"not with this store: it has no statement {statement!r}; use SQLite or PostgreSQL"
        )
        self.statement = statement


class NotWithThisServiceError(LapseError, NotImplementedError):
    """The operation cannot be done, because another session service has the used sessions.

    Nothing was changed. It is a NotImplementedError, as ADK's services raise.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"not with this service: {reason}")


class KeyReusedError(LapseError, ValueError):
    """An idempotency key was sent before with another request; nothing was written.

    It is a ValueError, like TooManyKeysError, for the reason of TooManyCreatesError.
    """


class TooManyKeysError(LapseError, ValueError):
    """A user has as many idempotency keys as the limits allow; nothing was written."""


class RunInFlightError(LapseError):
    """A run is in flight in the session; `run_id` names it."""

    def __init__(self, run_id: str) -> None:
        super().__init__("a run is in flight in this session; wait for its end, or cancel it")
        self.run_id = run_id


class TooManyRunsError(LapseError):
    """As many runs as the limits allow are in flight; another may begin when one has ended."""


def too_many_runs(of_user: int) -> TooManyRunsError:
    """Return the error that refuses another run of a user, who has as many as are allowed."""
    return TooManyRunsError(
        f"this user has {of_user} runs in flight (LAPSE_RUNS_PER_USER); wait for the end of one, "
        "or cancel one"
    )


class TooManyCreatesError(LapseError, ValueError):
    """As many sessions were created lately as the quotas allow.

    It is a ValueError, because ADK's routes log every other error as a fault of their own, with a
    traceback: a flood of requests would flood the log.

    Attributes:
        retry_after: how long to wait before another session may be created.
    """

    def __init__(self, reason: str, *, retry_after: timedelta) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class TooManyArtifactsError(LapseError):
    """The artifacts of a user have as many bytes as the quota allows."""


class NoSuchRunError(LapseError, LookupError):
    """The session has no such run, or its record is deleted already."""

    def __init__(
        self, reason: str = "no such run in this session; read its latest run, or the session"
    ) -> None:
        super().__init__(reason)


class ShuttingDownError(LapseError):
    """This process is about to stop and begins nothing new; another one may."""


class TooManyStreamsError(LapseError):
    """A session or a user has as many open streams as are allowed."""
