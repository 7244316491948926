"""What ADK's artifact routes let a request do, and what their answers leave out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

from fastapi.routing import APIRoute
from google.adk.artifacts.artifact_util import get_artifact_uri
from google.adk.artifacts.base_artifact_service import ArtifactVersion
from google.adk.sessions.base_session_service import GetSessionConfig

from lapse.adk.endpoints import Endpoint, around_endpoint
from lapse.adk.service import LapseSessionService
from lapse.artifacts.uploads import Uploads
from lapse.core.artifacts import OF_THE_USER
from lapse.core.errors import no_such_session
from lapse.core.keys import SessionKey

_PATH: Final = "/apps/{app_name}/users/{user_id}/sessions/{session_id}/artifacts"
_OF_ADK: Final = "google.adk."
_FILE: Final = "file:"
_NO_EVENTS: Final = GetSessionConfig(num_recent_events=0)


def guard_artifacts(
    routes: Iterable[object], service: LapseSessionService, uploads: Uploads
) -> None:
    """Bind ADK's artifact routes to sessions that live, and to the quota of uploads.

    The routes raise NoSuchSessionError if the session does not live, and TooManyArtifactsError for
    an artifact beyond the quota. Their answers have ADK's own reference where they would name a
    file. Agents and tools save and read through the artifact service, where none of this applies.
    """
    for route in routes:
        if (
            isinstance(route, APIRoute)
            and route.path.startswith(_PATH)
            and route.endpoint.__module__.startswith(_OF_ADK)
        ):
            _guard(route, service, uploads)


def _guard(route: APIRoute, service: LapseSessionService, uploads: Uploads) -> None:
    def wrap(endpoint: Endpoint) -> Endpoint:
        async def guarded(**asked: Any) -> Any:
            key = SessionKey(asked["app_name"], asked["user_id"], asked["session_id"])
            await _check_lives(service, key)
            async with _counted(route.methods or set(), uploads, key, asked):
                answer = await endpoint(**asked)
            return _without_files(answer, asked)

        return guarded

    around_endpoint(route, wrap)


async def _check_lives(service: LapseSessionService, key: SessionKey) -> None:
    """Raise NoSuchSessionError unless a session of exactly this key lives."""
    found = await service.get_session(**key._asdict(), config=_NO_EVENTS)
    # The service also finds a session whose id has no white space around it.
    if found is None or found.id != key.session_id:
        raise no_such_session(key.named)


def _counted(
    methods: set[str], uploads: Uploads, key: SessionKey, asked: Mapping[str, Any]
) -> AbstractAsyncContextManager[None]:
    if "POST" in methods:
        return uploads.saving(key, _filename(asked), _size(asked["req"].model_dump()))
    if "DELETE" in methods:
        return uploads.deleting(key, _filename(asked))
    return nullcontext()


def _size(value: object) -> int:
    """Return about how many bytes a value takes where it is kept."""
    match value:
        case bytes():
            return len(value)
        case str():
            return len(value.encode(errors="surrogatepass"))
        case dict():
            return sum(_size(name) + _size(inner) for name, inner in value.items())
        case list():
            return sum(map(_size, value))
        case _:
            return 8


def _without_files(answer: Any, asked: Mapping[str, Any]) -> Any:
    if isinstance(answer, list):
        return [_without_files(one, asked) for one in answer]
    if not isinstance(answer, ArtifactVersion) or not answer.canonical_uri.startswith(_FILE):
        return answer
    return answer.model_copy(update={"canonical_uri": _reference(answer.version, asked)})


def _reference(version: int, asked: Mapping[str, Any]) -> str:
    """Return ADK's reference to a version of the artifact that a request names."""
    filename = _filename(asked)
    session_id = None if filename.startswith(OF_THE_USER) else asked["session_id"]
    return get_artifact_uri(asked["app_name"], asked["user_id"], filename, version, session_id)


def _filename(asked: Mapping[str, Any]) -> str:
    """Return the artifact's name, which stands in the path or in the body."""
    name: str = asked["artifact_name"] if "artifact_name" in asked else asked["req"].filename
    return name
