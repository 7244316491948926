"""The idempotency keys that a store keeps, each with what its request has brought about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from lapse.core.documents import StateDelta
from lapse.core.errors import KeyReusedError, TooManyKeysError, no_such_session
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change, ChangeKind
from lapse.core.messages import UsedBy
from lapse.idempotency.rules import KEPT, KeyedRequest
from lapse.store.lifecycles import required
from lapse.store.lobby import Lobby
from lapse.store.locking import locked
from lapse.store.operation import Asking, Part, as_part, confirmed, native, only, operation, rows
from lapse.store.records import EventWindow, Result, SessionRecord

_DELETE_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key that is kept.

    Attributes:
        subject: the id of the latest run of its request, or of the session it has created.
        first_sent_at: when it was first kept.
        in_doubt: whether a broken-off attempt of the present call may have kept it.
    """

    subject: str
    first_sent_at: datetime
    in_doubt: bool = False


def kept_key(asked: KeyedRequest) -> Asking[KeptKey | None]:
    """Return the key of a request; None if it is not kept, and may be.

    Raises:
        KeyReusedError: the key is kept for another request.
        TooManyKeysError: the owner has as many keys as are allowed.
    """
    answer = yield from rows(
        "read_key", idempotency_key=asked.key, owner=asked.owner, kept=KEPT, most=asked.most
    )
    (row,) = answer
    if row["request"] is None:
        if row["of_owner"] >= asked.most:
            raise TooManyKeysError(
                f"this user has {asked.most} idempotency keys (LAPSE_IDEMPOTENCY_KEYS_PER_USER), "
                "each kept for a day; send the request without one, or wait"
            )
        return None
    if row["request"] != asked.request:
        raise KeyReusedError(
            "Idempotency-Key: was sent before with another request; give each request a key of "
            "its own, and repeat a request unchanged"
        )
    return KeptKey(row["subject"], row["first_sent_at"], in_doubt=answer.in_doubt)


def keep_key(asked: KeyedRequest, subject: str) -> Asking[datetime]:
    """Keep a key, or give it another subject; return when it was first kept."""
    row = yield from only(
        "keep_key",
        idempotency_key=asked.key,
        owner=asked.owner,
        request_digest=asked.request,
        subject=subject,
        kept=KEPT,
    )
    moment: datetime = row["first_sent_at"]
    return moment


class IdempotencyStore(Part):
    """Sessions that are created by requests with a key, and the end of keys."""

    @operation(writes=False)
    def created_before(self, key: SessionKey, asked: KeyedRequest) -> Asking[SessionRecord | None]:
        """Return the session that a creation with this key has made, as it is now; None: none yet.

        Raises:
            NoSuchSessionError: the session has expired, or was deleted.
            KeyReusedError: the key is kept for another request.
            TooManyKeysError: the user has as many keys as are allowed.
        """
        kept = yield from kept_key(asked)
        return None if kept is None else (yield from _session(key, kept))

    @operation(writes=False)
    def created_id(self, asked: KeyedRequest) -> Asking[str | None]:
        """Return the id of the session that a creation with this key has made; None: none yet."""
        kept = yield from kept_key(asked)
        return None if kept is None else kept.subject

    @operation(together=True)
    def create_once(
        self,
        key: SessionKey,
        asked: KeyedRequest,
        *,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        site: str | None = None,
        used_by: UsedBy = UsedBy.ANYONE,
    ) -> Asking[Result[SessionRecord]]:
        """Create a session as `Lobby.create` does, and keep the key with it: both, or neither.

        A repeat is recognised by the key, like every other request with it. It returns the session
        that the key is kept with, as it is now.

        Raises:
            SessionExistsError: a session of this key lives, which the request has not made.
            NoSuchSessionError: as in `created_before`; also KeyReusedError and TooManyKeysError.
            SharedStateFullError: there is no room for its app or user state.
        """
        yield from locked(asked.key)
        kept = yield from kept_key(asked)
        if kept is not None:
            yield from confirmed()
            session = yield from _session(key, kept)
            if not kept.in_doubt or kept.subject != key.session_id:
                return Result(session)
            record = yield from required(key, self.rules)
            return Result(session, (Change(ChangeKind.CREATED, record.created_at, record),))
        creating = as_part(Lobby.create)
        created: Result[SessionRecord] = yield from creating(
            Lobby(self._database),
            key,
            state=state,
            ttl=ttl,
            metadata=metadata,
            site=site,
            used_by=used_by,
        )
        yield from keep_key(asked, key.session_id)
        return created

    @operation()
    def keep_created(self, key: SessionKey, asked: KeyedRequest) -> Asking[None]:
        """Keep a key with a session that existed already, and was returned in place of a new one.

        A repeat keeps it again.
        """
        yield from keep_key(asked, key.session_id)

    @operation()
    def forget_keys(self, limit: int) -> Asking[int]:
        """Delete at most `limit` keys that are as old as KEPT; return their number.

        A repeat deletes what is left of them.
        """
        return len((yield from rows("forget_keys", limit=limit, kept=KEPT)))

    async def maintain(self) -> None:
        """Delete all keys that are as old as KEPT, in batches."""
        while await self.forget_keys(_DELETE_BATCH) == _DELETE_BATCH:
            pass


def _session(key: SessionKey, kept: KeptKey) -> Asking[SessionRecord]:
    made = key._replace(session_id=kept.subject)
    found: SessionRecord | None = yield from native("read", made, EventWindow())
    if found is None:
        raise no_such_session(made.named)
    # Artifacts may be owed: the outbox knows, and whoever deletes them asks it.
    return replace(found, owes_artifacts=True)
