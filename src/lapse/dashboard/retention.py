"""How retention stands for operators, and what they do about it. The audit log records each act."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from lapse.adk.service import LapseSessionService
from lapse.core.errors import (
    NotAsShownError,
    NotWithThisServiceError,
    no_such_session,
)
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle
from lapse.dashboard.cookies import Operator
from lapse.dashboard.counts import Count, Counted
from lapse.dashboard.reader import TIMEOUT
from lapse.retention.exemptions import ExemptionStore, Hold
from lapse.retention.levels import RetentionLevelStore
from lapse.retention.rules import ONLY_OWN
from lapse.retention.state import RetentionState, read_state
from lapse.retention.store import Falling, RetentionStore
from lapse.store.sessions import Sessions

DONE: Final[Mapping[str, str]] = {
    "confirmed": "The policy is confirmed. Servers with this policy follow it within ten seconds.",
    "was-confirmed": "The policy was confirmed already.",
    "held": "It is on hold: Lapse does not archive, purge or delete it.",
    "was-held": "It was on hold already.",
    "released": "The hold is released.",
    "was-released": "It was not on hold.",
}
"""The texts after an act."""

Preview = Counted[Sequence[Falling]]
"""A count of what a policy would take, kept by the policy's digest."""

_PREVIEW_EVERY: Final = timedelta(minutes=1)
_PATIENCE: Final = timedelta(seconds=2)


class Retention:
    """The policy of a process, its confirmation, and what is exempt from it.

    Every method raises NotWithThisServiceError if another session service has the used sessions.
    """

    def __init__(self, service: LapseSessionService, file: Path | None) -> None:
        self._service = service
        self._store = service.store
        self._file = file
        self._previews: Count[Sequence[Falling]] = Count(
            "what the retention policy would take is", every=_PREVIEW_EVERY, patience=_PATIENCE
        )

    @property
    def is_possible(self) -> bool:
        """Return whether the used sessions are in the store, where retention works."""
        return self._service.has_stored_events

    async def state(self) -> RetentionState:
        """Return how retention stands.

        Raises:
            StoreUnavailableError: the store does not answer.
            TimeoutError: the store did not answer in time.
        """
        self._check()
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            return await read_state(self._store, self._file)

    async def preview(self, state: RetentionState, *, anew: bool = False) -> Preview | None:
        """Return what the policy would take; None if there is none, or it is not counted yet.

        With `anew` it is counted again, unless that takes too long to wait for.
        """
        policy = state.policy
        if policy is None:
            return None
        store = RetentionStore(self._store)
        return await self._previews.latest(
            lambda: store.preview_retention(policy), policy.digest, anew=anew
        )

    async def confirm(self, digest: str, operator: Operator) -> bool:
        """Confirm the policy of this digest; False if it was confirmed already.

        Raises:
            NotAsShownError: the file says something else by now, or has faults, or is missing.
        """
        policy = (await self.state()).policy
        if policy is None:
            raise NotAsShownError("the policy file is missing or has faults; mend it first")
        if policy.digest != digest:
            raise NotAsShownError("the policy has changed since it was shown: look at it again")
        return await RetentionStore(self._store).confirm_retention(policy, by=operator.name)

    async def holds(self, user_id: str | None = None) -> Sequence[Hold]:
        """Return what is on hold, of all users or of one, the oldest first."""
        self._check()
        return await ExemptionStore(self._store).holds(user_id=user_id)

    async def holds_on(self, key: SessionKey) -> Sequence[Hold]:
        """Return the holds that keep a session; none where there is no retention."""
        if not self.is_possible:
            return ()
        return [
            hold
            for hold in await self.holds(key.user_id)
            if hold.key.app_name in {"", key.app_name}
            and hold.key.session_id in {"", key.session_id}
        ]

    async def hold(self, key: SessionKey, reason: str, operator: Operator) -> bool:
        """Put a session, or a user, on hold; False if it is already.

        Raises:
            InvalidValueError: the reason is missing, or no session or user can have this key.
            NoSuchSessionError: the session is unknown.
        """
        self._check()
        if key.session_id and await Sessions(self._store).lifecycle(key) is None:
            raise no_such_session(key.named)
        exemptions = ExemptionStore(self._store)
        return await exemptions.put_on_hold(key, reason=reason, by=operator.name)

    async def release(self, key: SessionKey, operator: Operator) -> bool:
        """Release exactly what was put on hold by this key; False if it is not on hold."""
        self._check()
        return await ExemptionStore(self._store).release_hold(key, by=operator.name)

    async def pinned(self, limit: int) -> Sequence[Lifecycle]:
        """Return at most `limit` pinned sessions, in the order of their keys."""
        self._check()
        return await RetentionLevelStore(self._store).pinned(limit)

    def _check(self) -> None:
        if not self.is_possible:
            raise NotWithThisServiceError(ONLY_OWN)
