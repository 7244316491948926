"""What ADK's artifact service is asked, and which of its names are a session's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from lapse.core.keys import SessionKey

OF_THE_USER: Final = "user:"
"""The prefix of the names of artifacts that all sessions of a user share."""


class ArtifactService(Protocol):
    """The methods of ADK's BaseArtifactService that find and delete artifacts."""

    async def list_artifact_keys(
        self, *, app_name: str, user_id: str, session_id: str | None = None
    ) -> list[str]:
        """Return a session's artifacts, and its user's."""
        ...

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[Any]:
        """Return the versions of an artifact, with their metadata and `create_time` in seconds."""
        ...

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        """Delete an artifact with all its versions."""
        ...


class CopyingService(ArtifactService, Protocol):
    """The methods that find, delete and copy artifacts."""

    async def load_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> Any:
        """Return a version of an artifact."""
        ...

    async def save_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: Any,
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> int:
        """Save an artifact, and return the number of its version."""
        ...


def scope_of(key: SessionKey) -> dict[str, Any]:
    """Return the service's arguments that name a session; with an empty id, its user."""
    return {**key._asdict(), "session_id": key.session_id or None}


async def artifacts_of(service: ArtifactService, key: SessionKey) -> Sequence[str]:
    """Return the names of a session's own artifacts; with an empty id, of the user's.

    Raises:
        ValueError: the service takes no such ids.
    """
    if key.session_id:
        return await own_artifacts(service, key)
    # A service may list them without the prefix, by which alone they are found.
    names = await _listed(service, key)
    return [name if name.startswith(OF_THE_USER) else OF_THE_USER + name for name in names]


async def own_artifacts(service: ArtifactService, key: SessionKey) -> Sequence[str]:
    """Return the names of a session's own artifacts, and none that its user shares.

    Raises:
        ValueError: the service takes no such ids.
    """
    return [name for name in await _listed(service, key) if not name.startswith(OF_THE_USER)]


async def _listed(service: ArtifactService, key: SessionKey) -> Sequence[str]:
    try:
        return await service.list_artifact_keys(**scope_of(key))
    except ValueError:
        # ADK's services take no ids with a slash, and keep nothing under them; a user's id may be
        # a URL.
        if "/" in key.user_id or "/" in key.session_id:
            return []
        raise
