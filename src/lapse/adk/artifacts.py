"""Keeps the server's folders out of the answers of ADK's artifact routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastapi.routing import APIRoute

from lapse.adk.private import after_endpoint

_FILE: Final = "file:"


def name_no_files(routes: Iterable[object]) -> None:
    """Replace the URI of a file by ADK's own reference in the answers of the artifact routes.

    Agents and tools still get the file's URI from the artifact service.
    """
    for route in routes:
        if isinstance(route, APIRoute) and "/artifacts" in route.path:
            after_endpoint(route, _without_files)


def _without_files(answer: Any, asked: Mapping[str, Any]) -> Any:
    from google.adk.artifacts.base_artifact_service import ArtifactVersion

    if isinstance(answer, list):
        return [_without_files(one, asked) for one in answer]
    if not isinstance(answer, ArtifactVersion) or not answer.canonical_uri.startswith(_FILE):
        return answer
    return answer.model_copy(update={"canonical_uri": _reference(answer.version, asked)})


def _reference(version: int, asked: Mapping[str, Any]) -> str:
    """Return ADK's reference to a version of the artifact that a request names."""
    from google.adk.artifacts.artifact_util import get_artifact_uri

    filename = asked["artifact_name"] if "artifact_name" in asked else asked["req"].filename
    of_the_user = filename.startswith("user:")
    session_id = None if of_the_user else asked["session_id"]
    return get_artifact_uri(asked["app_name"], asked["user_id"], filename, version, session_id)
