"""The artifacts of an export: a line for each version, read and saved by ADK's artifact service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from lapse.core.artifacts import CopyingService, artifacts_of, scope_of
from lapse.core.errors import StoreRefusedError, StoreUnavailableError
from lapse.core.keys import SessionKey

T = TypeVar("T")

_TIMEOUT: Final = timedelta(minutes=1)
"""How long the artifact service may take for one version."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifacts of users.

    Attributes:
        service: keeps them.
        serves: whether the service has an app's artifacts.
    """

    service: CopyingService
    serves: Callable[[str], bool] = lambda _: True

    async def lines(self, key: SessionKey) -> AsyncIterator[bytes]:
        """Yield a line for each version of a session's artifacts; with an empty id, of the user's.

        Raises:
            StoreUnavailableError: the service does not answer.
            StoreRefusedError: the service takes no such ids.
        """
        if not self.serves(key.app_name):
            return
        try:
            names = await _answer(artifacts_of(self.service, key))
        except ValueError as error:
            raise StoreRefusedError(
                f"the artifact service: {error!s:.200}; look at --artifact-service-uri"
            ) from error
        for name in sorted(set(names)):
            whole = {**scope_of(key), "filename": name}
            versions = await _answer(self.service.list_artifact_versions(**whole))
            for version in sorted(versions, key=lambda one: int(one.version)):
                part = await self._loaded(whole, version.version)
                if part is not None:
                    yield _line(whole, version, part)

    async def check(self, line: bytes) -> bool:
        """Return whether the version in a line is kept already.

        Raises:
            StoreRefusedError: another one is kept under its number.
            StoreUnavailableError: the service does not answer.
        """
        document = json.loads(line)
        whole = _whole(document)
        versions = await _answer(self.service.list_artifact_versions(**whole))
        kept = next((one for one in versions if one.version == document["version"]), None)
        if kept is None:
            return False
        part = await self._loaded(whole, kept.version)
        if part is None or _line(whole, kept, part) != line:
            raise StoreRefusedError(
                f"artifact {document['filename']!r:.60}: the artifact service keeps another "
                f"version {kept.version} already; delete it, or import with another service"
            )
        return True

    async def save(self, line: bytes) -> None:
        """Save the version in a line.

        Raises:
            StoreRefusedError: the service has given it another number.
            StoreUnavailableError: the service does not answer.
        """
        document = json.loads(line)
        number = await _answer(
            self.service.save_artifact(
                **_whole(document),
                artifact=document["part"],
                custom_metadata=document["customMetadata"] or None,
            )
        )
        if number != document["version"]:
            raise StoreRefusedError(
                f"artifact {document['filename']!r:.60}: version {document['version']} was saved "
                f"as version {number}; delete it and import again"
            )

    async def _loaded(self, whole: dict[str, Any], version: int) -> Any:
        return await _answer(self.service.load_artifact(**whole, version=version))


def _line(whole: dict[str, Any], version: Any, part: Any) -> bytes:
    document = {
        "appName": whole["app_name"],
        "userId": whole["user_id"],
        "sessionId": whole["session_id"],
        "filename": whole["filename"],
        "version": version.version,
        "customMetadata": version.custom_metadata or {},
        "part": part.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    return json.dumps(document).encode() + b"\n"


def _whole(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "app_name": document["appName"],
        "user_id": document["userId"],
        "session_id": document["sessionId"],
        "filename": document["filename"],
    }


async def _answer(call: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_TIMEOUT.total_seconds()):
            return await call
    except (TimeoutError, OSError) as error:
        told = str(error) or "no answer within a minute"
        raise StoreUnavailableError(f"the artifact service: {told:.200}") from error
