"""Runs of requests with an idempotency key: which run answers a repeat, or whether one begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from lapse.core.errors import no_such_session
from lapse.core.keys import SessionKey
from lapse.idempotency.rules import KeyedRequest
from lapse.idempotency.store import keep_key, kept_key
from lapse.runs.store import RunRecord, RunStatus, RunStore, record_of
from lapse.store.locking import locked
from lapse.store.operation import Asking, Part, Row, as_part, first, operation

_NO_FAULT_OF_THE_AGENT: Final = frozenset(
    {
        "AnswerLostError",
        "OutcomeUnknownError",
        "ShuttingDownError",
        "StaleSessionError",
        "StoreUnavailableError",
    }
)
"""Types of the errors of failed runs in which the store refused an event, or did not answer."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a request with an idempotency key.

    Attributes:
        run: the run that answers the request, in flight or ended; None: a run has to begin.
        message_id: the id of the user's message; empty while the key is not kept.
        is_stored: whether the message is stored.
        invocation_id: the invocation that the stored message has opened; None if the message joined
            one that others had opened, or is not stored.
    """

    run: RunRecord | None = None
    message_id: str = ""
    is_stored: bool = False
    invocation_id: str | None = None


NOTHING_KNOWN: Final = Known()
"""What is known of a request whose key is not kept, and of one without a key."""


class RepeatStore(Part):
    """The operations on runs of requests with an idempotency key.

    The beginning of a run and its key are one flushed transaction, before the message is stored.
    If a crash of the database could lose the key, the run would go on and store its message, and a
    repeat would store it again.
    """

    @operation(writes=False)
    def known(self, key: SessionKey, asked: KeyedRequest) -> Asking[Known]:
        """Return what is known of a request to a session.

        Raises:
            KeyReusedError: the key is kept for another request.
            TooManyKeysError: the user has as many keys as are allowed.
            NoSuchSessionError: the session was deleted since.
        """
        return (yield from _known(key, asked))

    @operation(together=True)
    def begin_once(
        self,
        key: SessionKey,
        run_id: str,
        asked: KeyedRequest,
        *,
        max_per_user: int,
        prepared: Known,
    ) -> Asking[Known]:
        """Begin a run that the request has to begin, and keep the key with it: both, or neither.

        Nothing is done if anything but what is `prepared` is known by now; then that is returned.
        A repeat is recognised by `run_id`.

        Raises:
            RunInFlightError: another run is in flight in the session; the error names it.
            TooManyRunsError: the user has `max_per_user` runs in flight in the app.
            NoSuchSessionError: as in `known`; also KeyReusedError and TooManyKeysError.
        """
        yield from locked(asked.key)
        known = yield from _known(key, asked)
        if known.run is not None or known != prepared:
            return known
        beginning = as_part(RunStore.begin_run)
        record = yield from beginning(
            RunStore(self._database), key, run_id, max_per_user=max_per_user
        )
        first_sent_at = yield from keep_key(asked, run_id)
        message_id = message_id_of(asked, first_sent_at)
        return replace(known, run=record, message_id=message_id)


def run_of(key: SessionKey, asked: KeyedRequest) -> Asking[tuple[Row, str] | None]:
    """Return the row of a request's latest run, and its message's id; None: no key is kept.

    Raises:
        NoSuchSessionError: the session was deleted since.
    """
    kept = yield from kept_key(asked)
    if kept is None:
        return None
    message_id = message_id_of(asked, kept.first_sent_at)
    row = yield from first("run_of_request", key, run_id=kept.subject, event_id=message_id)
    if row is None:
        # Records of runs are kept for longer than keys, and go only with their session.
        raise no_such_session(key.named)
    return row, message_id


def _known(key: SessionKey, asked: KeyedRequest) -> Asking[Known]:
    found = yield from run_of(key, asked)
    if found is None:
        return NOTHING_KNOWN
    row, message_id = found
    record, is_stored = record_of(key, row), bool(row["is_stored"])
    it_answers = answers(record, is_stored=is_stored, has_spoken=bool(row["has_spoken"]))
    opened = row["opened_invocation"]
    return Known(record if it_answers else None, message_id, is_stored, opened)


def answers(record: RunRecord, *, is_stored: bool, has_spoken: bool) -> bool:
    """Return whether a run answers each repeat of its request, or another has to begin.

    Another begins if nothing was stored, and if the agent has said nothing because the process died
    or the store refused or lost what it said.
    """
    if record.in_flight or record.cancel_requested or record.status is RunStatus.DONE:
        return True
    if has_spoken or not is_stored:
        return has_spoken
    if record.status is RunStatus.FAILED:
        details = (record.error or {}).get("error_details", {})
        return details.get("error_type") not in _NO_FAULT_OF_THE_AGENT
    return record.status is RunStatus.TIMED_OUT


def message_id_of(asked: KeyedRequest, first_sent_at: datetime) -> str:
    """Return the id of the message that a request with a key brings, the same in each repeat."""
    return asked.event_id(first_sent_at.isoformat())
