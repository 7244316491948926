"""What is exempt from retention by hand: sessions that are pinned, and what is on hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lapse.core.errors import InvalidValueError, WrongStatusError
from lapse.core.keys import SessionKey, check_key, unseen_in
from lapse.core.lifecycle import Lifecycle, Status
from lapse.core.minutes import DEFAULT_TTL
from lapse.store.lifecycles import required
from lapse.store.operation import Asking, Part, key_of, operation, rows
from lapse.store.records import Result, shown_of
from lapse.store.riders import audited, counted

LONGEST_REASON: Final = 500

_PINNABLE: Final = (Status.USED, Status.ARCHIVED)


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold: on which session or user, since when, by whom and why.

    An empty `session_id` of the key is all sessions of the user, those to come included; an empty
    `app_name` is those of all apps.
    """

    key: SessionKey
    since: datetime
    by: str
    reason: str


def check_hold(key: SessionKey, reason: str) -> str:
    """Return the reason of a hold, without white space around it.

    Raises:
        InvalidValueError: there is no reason, or no such session or user can be.
    """
    whole = key._replace(app_name=key.app_name or "-", session_id=key.session_id or "-")
    check_key(whole)
    if key.session_id and not key.app_name:
        raise InvalidValueError("app name", "must be given with a session")
    reason = reason.strip()
    if not reason or len(reason) > LONGEST_REASON:
        raise InvalidValueError("reason", f"must have 1 to {LONGEST_REASON} characters")
    if unseen := unseen_in(reason):
        raise InvalidValueError("reason", f"must not contain {unseen}")
    return reason


class ExemptionStore(Part):
    """Pins and holds. The audit log records each change of one, with who asked for it."""

    @operation()
    def pin(self, key: SessionKey, *, by: str | None = None) -> Asking[Result[Lifecycle]]:
        """Exempt a used or archived session from retention, for as long as it is pinned.

        A session that stock ADK created gets a record. A pinned one stays as it is. A repeat finds
        it pinned.

        Raises:
            NoSuchSessionError: the session is unknown.
            WrongStatusError: it has no message yet.
        """
        act = audited(key, by, "pinned")
        answer = yield from rows("pin", key, **act)
        if not answer:
            record = yield from required(key, self.rules)
            if record.status not in _PINNABLE:
                raise WrongStatusError(
                    f"session {key.named} is {record.status}: only a session with a message can be "
                    "pinned; send it a message first"
                )
            if (yield from rows("record_used", key, ttl=DEFAULT_TTL)):
                yield from counted(key, None, None, Status.USED)
            answer = yield from rows("pin", key, **act)
        if answer and by is not None:
            yield from rows("audit_change", key, **act)
        if answer:
            return Result(shown_of(answer[0], self.rules))
        return Result((yield from required(key, self.rules)))

    @operation()
    def unpin(self, key: SessionKey, *, by: str | None = None) -> Asking[Result[Lifecycle]]:
        """Let retention apply to a session again. A repeat finds it not pinned.

        Raises:
            NoSuchSessionError: the session is unknown.
        """
        act = audited(key, by, "unpinned")
        answer = yield from rows("unpin", key, **act)
        if answer and by is not None:
            yield from rows("audit_change", key, **act)
        return Result((yield from required(key, self.rules)))

    @operation(together=True)
    def put_on_hold(self, key: SessionKey, *, reason: str, by: str) -> Asking[bool]:
        """Put a session, or a user, on hold; False if it is already.

        From its commit on nothing of Lapse archives, purges or deletes what is on hold, and nothing
        that was on its way to do so is left. `Hold` says what empty parts of the key mean. A repeat
        finds it on hold, and then returns False.

        Raises:
            InvalidValueError: there is no reason, or no such session or user can be.
        """
        reason = check_hold(key, reason)
        yield from rows("exclude_writers")
        done = yield from rows("put_on_hold", key, reason=reason, by=by)
        if done:
            yield from rows("record_act", key, **audited(key, by, "held", **_whose(key)))
        return bool(done)

    @operation(together=True)
    def release_hold(self, key: SessionKey, *, by: str) -> Asking[bool]:
        """Release exactly what was put on hold by this key; False if it is not on hold.

        A repeat finds it released, and then returns False.
        """
        done = yield from rows("release_hold", key)
        if done:
            yield from rows("look_soon", key)
            yield from rows("record_act", key, **audited(key, by, "released", **_whose(key)))
        return bool(done)

    @operation(writes=False)
    def holds(self, *, user_id: str | None = None) -> Asking[Sequence[Hold]]:
        """Return what is on hold, of all users or of one, the oldest first."""
        found = yield from rows("holds", only_user=user_id)
        return [
            Hold(key_of(row), row["held_since"], row["principal"], row["reason"]) for row in found
        ]


def _whose(key: SessionKey) -> dict[str, str]:
    """Return what an act says of a hold on a user, who is not named."""
    if key.session_id:
        return {}
    user = SessionKey("", key.user_id, "").digest
    return {"user": user}
