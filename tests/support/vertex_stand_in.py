"""A stand-in for the sessions of Vertex AI Agent Engine: the REST requests of ADK's own client.

It is not Google's service. It is written after the public reference of `reasoningEngines.sessions`
(v1beta1) and after what the client sends. What that does not say is chosen so that nothing is
promised which the API does not: an event has an id of the server's, so that one that is appended
twice stands twice; nothing is stale; an id of a client's has letters, digits and hyphens alone;
lists have pages; `app:` and `user:` state is the session's.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from urllib.parse import unquote

import httpx
from google.adk.sessions.vertex_ai_session_service import VertexAiSessionService
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from served import Served

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Google's client says of its own parts at import
    import agentplatform
    import agentplatform._genai.session_events
    import agentplatform._genai.sessions

ENGINE: Final = "42"
PARENT: Final = f"projects/stand-in/locations/nowhere/reasoningEngines/{ENGINE}"
PAGE: Final = 3

_ID: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_USER: Final = re.compile(r'user_id="((?:[^"\\]|\\.)*)"')
_SINCE: Final = re.compile(r'timestamp>="([^"]+)"')


class ApiError(Exception):
    """An error as Google's APIs answer it."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.document = {"error": {"code": code, "status": status, "message": message}}


class StandIn:
    """Sessions in memory. `pending` is how often an operation is asked for until it is done."""

    def __init__(self, *, pending: int = 0) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.pending = pending
        self._operations: dict[str, tuple[int, str]] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()

    def app(self) -> Starlette:
        async def answer(request: Request) -> JSONResponse:
            body = await request.body()
            document = json.loads(body) if body else {}
            name = unquote(request.url.path).removeprefix("/v1beta1/")
            try:
                with self._lock:
                    found = self._answered(request, name, document)
            except ApiError as error:
                return JSONResponse(error.document, error.code)
            return JSONResponse(found)

        return Starlette(routes=[Route("/{any:path}", answer, methods=["GET", "POST", "DELETE"])])

    def _answered(self, request: Request, name: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = request.query_params
        if not name.startswith(f"{PARENT}/sessions"):
            raise ApiError(404, "NOT_FOUND", f"{name} is not found")
        if "/operations/" in name:
            return self._operation(name)
        match request.method, name.rpartition("/")[2].rpartition(":")[2]:
            case "POST", "sessions":
                found = self._create(body, asked.get("sessionId"))
            case "POST", "appendEvent":
                found = self._append(name.removesuffix(":appendEvent"), body)
            case "GET", "sessions":
                found = self._page("sessions", self._of_user(asked.get("filter")), asked)
            case "GET", "events":
                events = self._since(name.removesuffix("/events"), asked.get("filter"))
                found = self._page("sessionEvents", events, asked)
            case "GET", _:
                found = self._session(name)
            case "DELETE", _:
                self._session(name)
                del self.sessions[name], self.events[name]
                found = {"name": f"{name}/operations/{next(self._numbers)}", "done": True}
            case _:
                raise ApiError(501, "UNIMPLEMENTED", f"{request.method} {name}")
        return found

    def _session(self, name: str) -> dict[str, Any]:
        if name not in self.sessions:
            raise ApiError(404, "NOT_FOUND", f"{name} is not found")
        return self.sessions[name]

    def _create(self, body: dict[str, Any], session_id: str | None) -> dict[str, Any]:
        if session_id is not None and not _ID.fullmatch(session_id):
            raise ApiError(400, "INVALID_ARGUMENT", "session_id is not valid")
        name = f"{PARENT}/sessions/{session_id or 1_000_000 + next(self._numbers)}"
        if name in self.sessions:
            raise ApiError(409, "ALREADY_EXISTS", f"{name} exists already")
        now = _now()
        self.sessions[name] = {
            "name": name,
            "userId": body["userId"],
            "createTime": now,
            "updateTime": now,
            "sessionState": body.get("sessionState", {}),
        }
        self.events[name] = []
        operation = f"{name}/operations/{next(self._numbers)}"
        self._operations[operation] = self.pending, name
        return self._operation(operation)

    def _operation(self, operation: str) -> dict[str, Any]:
        left, name = self._operations[operation]
        self._operations[operation] = left - 1, name
        if left > 0:
            return {"name": operation, "done": False}
        return {"name": operation, "done": True, "response": {"name": name}}

    def _append(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        session = self._session(name)
        event = {"name": f"{name}/events/{next(self._numbers)}", **body}
        self.events[name].append(event)
        actions = body.get("actions") or {}
        # JSON of protocol buffers has either name.
        session["sessionState"] |= actions.get("stateDelta") or actions.get("state_delta") or {}
        session["updateTime"] = body["timestamp"]  # as ADK's service notes it after an append
        return {}

    def _of_user(self, wanted: str | None) -> list[dict[str, Any]]:
        found = list(self.sessions.values())
        if wanted is None:
            return found
        quoted = _USER.fullmatch(wanted)
        if quoted is None:
            raise ApiError(400, "INVALID_ARGUMENT", f"filter {wanted!r} is not valid")
        user = re.sub(r"\\(.)", r"\1", quoted[1])
        return [session for session in found if session["userId"] == user]

    def _since(self, name: str, wanted: str | None) -> list[dict[str, Any]]:
        self._session(name)
        events = self.events[name]
        if wanted is None:
            return events
        since = _SINCE.fullmatch(wanted)
        if since is None:
            raise ApiError(400, "INVALID_ARGUMENT", f"filter {wanted!r} is not valid")
        moment = datetime.fromisoformat(since[1])
        return [event for event in events if datetime.fromisoformat(event["timestamp"]) >= moment]

    def _page(self, title: str, found: list[dict[str, Any]], asked: Any) -> dict[str, Any]:
        start = int(asked.get("pageToken") or 0)
        end = start + int(asked.get("pageSize") or PAGE)
        more = {"nextPageToken": str(end)} if end < len(found) else {}
        return {title: found[start:end], **more}


class StandInService(VertexAiSessionService):
    """ADK's service with its own client, which asks a stand-in in place of Google's API."""

    def __init__(self, url: str) -> None:
        super().__init__("stand-in", "nowhere", ENGINE)
        self._url = url
        self._http: httpx.AsyncClient | None = None

    def _build_api_client(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.genai.types import HttpOptions

        # With one of its own it does not look for another library for HTTP.
        self._http = httpx.AsyncClient(trust_env=False)
        credentials = AnonymousCredentials()
        credentials.token = "none-is-needed"  # the client sends one with each request
        return agentplatform.Client(
            project="stand-in",
            location="nowhere",
            credentials=credentials,
            http_options=HttpOptions(
                base_url=self._url, api_version="v1beta1", httpx_async_client=self._http
            ),
        ).aio

    async def close(self) -> None:
        """Close the connections of the client of this event loop."""
        if self._http is not None:
            await self._http.aclose()


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@asynccontextmanager
async def vertex_service(stand_in: StandIn | None = None) -> AsyncIterator[StandInService]:
    """Serve a stand-in, and yield ADK's service on it."""
    made = stand_in or StandIn()
    with Served(made.app()) as server:
        service = StandInService(server.origin)
        service.stand_in = made  # type: ignore[attr-defined]
        try:
            yield service
        finally:
            await service.close()
