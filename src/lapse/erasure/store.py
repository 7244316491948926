"""What an erasure reads and takes from a store."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lapse.core.keys import SessionKey, user_digest
from lapse.erasure.places import Place
from lapse.idempotency.rules import owner_of
from lapse.quotas.rules import Bucket, Drawer
from lapse.retention.memory_outbox import OwedMemory, owed_of
from lapse.store.archiving import unpack
from lapse.store.operation import (
    NO_SESSION,
    Asking,
    Part,
    apart,
    first,
    key_of,
    only,
    operation,
    rows,
)
from lapse.store.riders import audited

_BATCH: Final = 500
"""Rows that are taken in one transaction."""


@dataclass(frozen=True, slots=True)
class Erasing:
    """Whom an erasure is about, as its statements take it.

    Attributes:
        user_id: the user.
        owners: the digests of the user and each app, which own idempotency keys.
        pseudonym: what stands for the user in observations from now on; nobody knows whose it is.
    """

    user_id: str
    owners: Sequence[str]
    pseudonym: str = field(default_factory=lambda: f"erased-{secrets.token_hex(8)}")

    @property
    def params(self) -> Mapping[str, Any]:
        """Return the parameters of a place's statements."""
        return {
            "owners": list(self.owners),
            "bucket": Bucket.of(Drawer.USER, self.user_id, 1).name,
            "pseudonym": self.pseudonym,
        }


@dataclass(frozen=True, slots=True)
class Stored:
    """How many sessions of a user an app has, with their events.

    Attributes:
        sessions: in ADK's tables and in the lobby, of any status.
        events: in ADK's tables.
        elsewhere: those of the sessions that another session service has, or is about to.
    """

    sessions: int
    events: int
    elsewhere: int


@dataclass(frozen=True, slots=True)
class Held:
    """The holds that concern a user.

    Attributes:
        holds: of each hold the app and the session; an empty name stands for all.
    """

    holds: Sequence[tuple[str, str]] = ()

    def has(self, key: SessionKey) -> bool:
        """Return whether a session is on hold."""
        return any(
            app in {"", key.app_name} and session in {"", key.session_id}
            for app, session in self.holds
        )

    def touches(self, app_name: str) -> bool:
        """Return whether anything of an app is on hold; with an empty name, of any app."""
        return any(not app_name or app in {"", app_name} for app, _ in self.holds)


class ErasureStore(Part):
    """Reads and takes what is kept of a user."""

    @operation(writes=False)
    def apps(self, user_id: str) -> Asking[Sequence[str]]:
        """Return the apps in which something is kept of a user."""
        key = SessionKey("", user_id, "")
        found = yield from rows("apps_of_user", key)
        found += yield from rows("apps_to_erase", key)
        return sorted({row["app_name"] for row in found})

    @operation(writes=False)
    def erasing(self, user_id: str, apps: Sequence[str]) -> Asking[Erasing]:
        """Return whom an erasure is about; `apps` are further apps that are known of."""
        known = {row["app_name"] for row in (yield from rows("known_apps"))} | set(apps)
        return Erasing(user_id, [owner_of(app, user_id) for app in sorted(known)])

    @operation()
    def begin(self, user_id: str, found: Mapping[str, int]) -> Asking[Mapping[str, int]]:
        """Keep what an erasure finds at its beginning, and return it.

        If an erasure of the user was stopped, that is what this one found at its beginning. A
        repeat finds what the first attempt kept.
        """
        digest, counts = user_digest(user_id), json.dumps(dict(found))
        row = yield from only("begin_erasure", user_digest=digest, counts_before=counts)
        kept: Mapping[str, int] = json.loads(row["counts_before"])
        return kept

    @operation(together=True)
    def finish(self, user_id: str, *, by: str, detail: Mapping[str, Any]) -> Asking[None]:
        """Record the receipt of an erasure, and forget what it found at its beginning.

        A repeat finds it forgotten, and records nothing.
        """
        answer = yield from rows("end_erasure", user_digest=user_digest(user_id))
        if answer or not answer.in_doubt:
            yield from rows("record_act", **audited(NO_SESSION, by, "erased", **detail))

    @operation(writes=False)
    def held(self, user_id: str) -> Asking[Held]:
        """Return what is on hold of a user now."""
        found = yield from rows("holds", only_user=user_id)
        return Held([(row["app_name"], row["session_id"]) for row in found])

    @operation(writes=False)
    def stored(self, app_name: str, user_id: str) -> Asking[Stored]:
        """Count a user's sessions in an app."""
        row = yield from only("count_sessions_to_erase", SessionKey(app_name, user_id, ""))
        return Stored(row["sessions"], row["events"], row["elsewhere"])

    @operation(writes=False)
    def count(self, place: Place, app_name: str, erasing: Erasing) -> Asking[int]:
        """Count the rows of a place."""
        key = SessionKey(app_name, erasing.user_id, "")
        row = yield from only(f"count_{place.name}", key, **erasing.params)
        found: int = row["found"]
        return found

    @operation()
    def take(self, place: Place, app_name: str, erasing: Erasing) -> Asking[int]:
        """Take a batch of a place's rows, and return how many; 0: there are no more.

        A repeat takes what is left of them.
        """
        key = SessionKey(app_name, erasing.user_id, "")
        return len((yield from rows(f"erase_{place.name}", key, limit=_BATCH, **erasing.params)))

    @operation()
    def take_traces(self, user: SessionKey, ids: Sequence[str]) -> Asking[None]:
        """Take what names deleted sessions by their ids or digests. A repeat finds nothing."""
        for name in ("erase_traces", "erase_attempts"):
            yield from rows(name, user, session_ids=list(ids))

    @operation(writes=False)
    def ids(
        self, user: SessionKey, *, after: str, limit: int, everywhere: bool
    ) -> Asking[Sequence[str]]:
        """Return the next ids of a user's sessions in an app, of any status.

        Without `everywhere` it leaves those out that only another session service can delete.
        """
        found = yield from rows(
            "ids_to_erase", user, after_id=after, limit=limit, everywhere=everywhere
        )
        return [row["session_id"] for row in found]

    @operation(writes=False)
    def event_ids(self, key: SessionKey, *, after: str, limit: int) -> Asking[Sequence[str]]:
        """Return the next ids of a session's events."""
        found = yield from rows("event_ids", key, after_id=after, limit=limit)
        return [row["event_id"] for row in found]

    @operation(writes=False)
    def archived_event_ids(self, key: SessionKey) -> Asking[Sequence[str]]:
        """Return the ids of the events of an archived session; none if it is not archived."""
        row = yield from first("read_archived", key)
        if row is None:
            return []
        packed = yield from apart(unpack, row["content"])
        return [event[0] for event in packed.events if event[0] is not None]

    @operation(writes=False)
    def owed(self, user_id: str) -> Asking[Sequence[SessionKey]]:
        """Return some ended sessions whose artifacts are still to be deleted."""
        found = yield from rows("owed_artifacts", SessionKey("", user_id, ""), limit=_BATCH)
        return [key_of(row) for row in found]

    @operation(writes=False)
    def count_owed(self, user_id: str) -> Asking[int]:
        """Count the ended sessions whose artifacts are still to be deleted."""
        row = yield from only("count_owed_artifacts", SessionKey("", user_id, ""))
        found: int = row["found"]
        return found

    @operation()
    def forget_owed(self, key: SessionKey) -> Asking[None]:
        """Remove an ended session whose artifacts are deleted. A repeat finds it removed."""
        yield from rows("settle_owed", key)

    @operation(writes=False)
    def owed_memory(self, user_id: str) -> Asking[Sequence[OwedMemory]]:
        """Return some of what the memory service is still to forget of purged sessions."""
        found = yield from rows("owed_memory", SessionKey("", user_id, ""), limit=_BATCH)
        return [owed_of(row) for row in found]

    @operation(writes=False)
    def count_owed_memory(self, user_id: str) -> Asking[int]:
        """Count the entries of what is still to be forgotten of purged sessions."""
        row = yield from only("count_owed_memory", SessionKey("", user_id, ""))
        found: int = row["found"]
        return found

    @operation(writes=False)
    def may_redact(self) -> Asking[bool]:
        """Return whether this role may change what the audit log says."""
        row = yield from only("may_redact")
        return bool(row["may"])

    @operation(writes=False)
    def keeps_old_tables(self) -> Asking[bool]:
        """Return whether a migration of ADK's version 0, or its undo, has set tables aside."""
        row = yield from only("keeps_old_tables")
        return bool(row["found"])

    @operation(writes=False)
    def count_acts_on(self, user: SessionKey, ids: Sequence[str]) -> Asking[int]:
        """Count the acts on a user's sessions of an app."""
        row = yield from only("acts_of_sessions", user, digests=_digests(user, ids))
        found: int = row["found"]
        return found

    @operation(writes=False)
    def count_acts_of(self, user_id: str) -> Asking[int]:
        """Count the acts that are a user's own, or that name the user."""
        params = {"user_digest": user_digest(user_id)}
        row = yield from only("acts_of_user", SessionKey("", user_id, ""), **params)
        found: int = row["found"]
        return found

    @operation(together=True)
    def redact_acts_on(self, user: SessionKey, ids: Sequence[str]) -> Asking[int]:
        """Take out of the acts on a user's sessions what names these; return how many acts.

        The acts stay, with who did them. A repeat finds nothing.
        """
        params = {"digests": _digests(user, ids)}
        row = yield from only("acts_of_sessions", user, **params)
        if not row["found"]:
            return 0
        return (yield from _unlocked("redact_sessions", user, params))

    @operation(together=True)
    def redact_acts_of(self, user_id: str) -> Asking[int]:
        """Take a user's name out of the acts that are their own, or name them; return how many.

        A repeat finds nothing.
        """
        key, params = SessionKey("", user_id, ""), {"user_digest": user_digest(user_id)}
        row = yield from only("acts_of_user", key, **params)
        if not row["found"]:
            return 0
        return (yield from _unlocked("redact_user", key, params))


def _unlocked(name: str, key: SessionKey, params: Mapping[str, Any]) -> Asking[int]:
    """Change acts, which the log refuses before and after."""
    yield from rows("unlock_audit")
    changed = yield from rows(name, key, **params)
    yield from rows("lock_audit")
    return len(changed)


def _digests(user: SessionKey, ids: Sequence[str]) -> Sequence[str]:
    return [user._replace(session_id=one).digest for one in ids]
