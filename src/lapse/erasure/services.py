"""What an erasure asks beside the store and the memory: artifacts, and another session service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lapse.adk.remembered import answer_of
from lapse.core.artifacts import ArtifactService, artifacts_of, scope_of
from lapse.core.errors import NotWithThisServiceError, StoreRefusedError
from lapse.core.keys import SessionKey


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifacts of users.

    Attributes:
        service: keeps them.
        serves: whether the service has an app's artifacts.
    """

    service: ArtifactService
    serves: Callable[[str], bool] = lambda _: True

    async def names(self, key: SessionKey) -> Sequence[str]:
        """Return the names of a session's own artifacts; with an empty id, of the user's.

        Raises:
            StoreUnavailableError: the service does not answer.
            StoreRefusedError: the service takes no such ids.
        """
        if not self.serves(key.app_name):
            return []
        try:
            return await answer_of("artifact", artifacts_of(self.service, key))
        except ValueError as error:
            raise StoreRefusedError(
                f"the artifact service: {type(error).__name__}; look at --artifact-service-uri"
            ) from error

    async def delete(self, key: SessionKey) -> int:
        """Delete a session's own artifacts, or with an empty id the user's; return how many."""
        names = await self.names(key)
        for name in names:
            call = self.service.delete_artifact(**scope_of(key), filename=name)
            await answer_of("artifact", call)
        return len(names)


class Conversations(Protocol):
    """The methods needed of a session service of Lapse's whose conversations are elsewhere."""

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> Any:
        """Return the sessions of a user."""
        ...

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: Any = None
    ) -> Any:
        """Return a session."""
        ...

    async def get_user_state(self, *, app_name: str, user_id: str) -> Any:
        """Return a user's state."""
        ...


class OtherService:
    """The data of a user in another session service; ADK cannot delete a user's state there."""

    def __init__(self, service: Conversations) -> None:
        self._service = service

    async def ids(self, user: SessionKey) -> Sequence[str]:
        """Return the ids of the user's sessions in an app."""
        found = await self._service.list_sessions(app_name=user.app_name, user_id=user.user_id)
        return [one.id for one in found.sessions]

    async def event_ids(self, key: SessionKey) -> Sequence[str]:
        """Return the ids of a session's events."""
        session = await self._service.get_session(**key._asdict())
        return [] if session is None else [event.id for event in session.events]

    async def keeps_state(self, user: SessionKey) -> bool:
        """Return whether it has, or may have, state of the user in an app."""
        try:
            state = await self._service.get_user_state(app_name=user.app_name, user_id=user.user_id)
        except NotWithThisServiceError:
            return True
        return bool(state)
