"""The route that streams a session's notices as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.routes import Key, LifecycleBody
from lapse.adk.service import LapseSessionService
from lapse.core.clock import iso
from lapse.core.keys import SessionKey
from lapse.core.request import route_path
from lapse.limits.unread import let_go_of
from lapse.notices.rules import Known, Notice, NoticeKind
from lapse.notices.watcher import Watcher

MEDIA_TYPE: Final = "text/event-stream"

_STAYING: Final = "lapse.staying"
"""The key of a request's scope under which a stream is handed to `NoticeStreamMiddleware`."""

_WARNINGS: Final = frozenset({NoticeKind.EXPIRING, NoticeKind.ARCHIVING})

_HEARTBEAT: Final = b": heartbeat\n\n"
_MOST_WAITING: Final = 16
"""A reader is dropped if more frames than this wait for it."""

_MOST_MISSED: Final = 2
"""A reader is dropped if it takes nothing while this many heartbeats come."""

_RETRY_SECONDS: Final = (2.0, 5.0)
"""How long a browser waits until it connects again; random, so that not all come at once."""

_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # otherwise nginx would hold the events back
)

_log = logging.getLogger(__name__)


def notice_routes(service: LapseSessionService, watcher: Watcher) -> APIRouter:
    """Return a router with `GET …/lifecycle/events`."""
    router = APIRouter(
        prefix="/apps/{app_name}/users/{user_id}/sessions/{session_id}/lifecycle",
        tags=["lifecycle"],
    )

    @router.get(
        "/events",
        response_class=NoticeResponse,
        status_code=200,
        responses={429: {"description": "the session, or its user, has too many streams open"}},
    )
    async def events(
        key: Key, last_event_id: Annotated[str | None, Header()] = None
    ) -> NoticeResponse:
        """Stream what happens to a session, as server-sent events, until it is gone."""
        stored = (await service.lifecycle(key)).key
        return NoticeResponse(watcher, stored, Known.parse(last_event_id or ""))

    return router


class NoticeResponse(Response):
    """A stream of notices, which lasts as long as its session, its reader and this process do.

    While nothing happens, it is one suspended call, that of the request. Notices are written by a
    task that ends when there is nothing left to write.
    """

    media_type = MEDIA_TYPE

    def __init__(self, watcher: Watcher, key: SessionKey, known: Known | None) -> None:
        self._watcher = watcher
        self._key = key
        self._known = known
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, and stream.

        Raises:
            TooManyStreamsError: too many streams are open; nothing was sent.
        """
        self._stream = _Stream(let_go_of(scope))
        self._unwatch = self._watcher.watch(self._key, self._stream, self._known)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        except BaseException:
            self._unwatch()
            raise
        if _STAYING in scope:
            scope[_STAYING].append(self)
            return
        try:
            await self.stay(receive, send)
        finally:
            self.leave()

    async def stay(self, receive: Receive, send: Send) -> None:
        """Write notices until the reader leaves, is too slow, or the stream ends.

        The caller calls `leave` afterwards.
        """
        stream = self._stream
        try:
            stream.open(send)
            while (await receive())["type"] != "http.disconnect":
                pass
        except asyncio.CancelledError:
            if not stream.dropped:
                raise
            stream.task.uncancel()
            _log.info("a slow reader of notices was dropped", extra={"session": self._key.short})
        finally:
            await stream.close()

    def leave(self) -> None:
        """Stop watching the session."""
        self._unwatch()


class NoticeStreamMiddleware:
    """Middleware that holds the streams of notices, so that inner middleware can return.

    Each middleware that a request passes through keeps a KiB or two for as long as the request
    lasts. The head of a stream passes through all of them, for their headers. Then they return,
    and this middleware alone awaits the rest of the stream. The further out it stands, the less
    memory a stream needs: around the whole application less than half.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and stream if the answer is a stream."""
        is_stream = scope["type"] == "http" and route_path(scope).endswith("/lifecycle/events")
        if not is_stream or _STAYING in scope:
            await self._app(scope, receive, send)
            return
        staying: list[NoticeResponse] = []
        try:
            await self._app({**scope, _STAYING: staying}, receive, send)
            for response in staying:
                await response.stay(receive, send)
        finally:
            for response in staying:
                response.leave()


class _Stream:
    """Writes frames to one reader, in order, without ever making the watcher wait.

    `let_go` aborts the reader's connection; None: its server can only close it.
    """

    __slots__ = (
        "_ended",
        "_ending",
        "_frames",
        "_let_go",
        "_missed",
        "_opened",
        "_send",
        "_writing",
        "dropped",
        "task",
    )

    task: asyncio.Task[Any]

    def __init__(self, let_go: Callable[[], None] | None) -> None:
        self.dropped = False
        self._let_go = let_go
        self._send: Send | None = None
        self._frames: list[bytes] = [_retry()]
        self._writing: asyncio.Task[None] | None = None
        self._ending = False
        self._ended = False
        self._missed = 0

    def open(self, send: Send) -> None:
        """Start to write: the head is sent, and the current task waits for the stream's end."""
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._send = send
        self._write_soon()

    async def close(self) -> None:
        """Stop writing, and return once stopped."""
        self._ending = True
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    def hear(self, notices: Sequence[Notice]) -> None:
        """Queue notices; drop the reader if too many frames wait for it."""
        if self._ending:
            return
        self._frames.extend(map(_frame, notices))
        if len(self._frames) > _MOST_WAITING:
            self._drop()
        else:
            self._write_soon()

    def beat(self) -> None:
        """Queue a heartbeat; if the reader still has frames to take, count it as missed."""
        if self._ending:
            return
        if self._writing is None:
            self._missed = 0
            self._frames.append(_HEARTBEAT)
            self._write_soon()
            return
        if self._let_go is not None:
            # Such a server can tell a slow reader from one who takes nothing.
            return
        self._missed += 1
        if self._missed >= _MOST_MISSED:
            self._drop()

    def end(self) -> None:
        """End the response once all frames are written."""
        self._ending = True
        self._write_soon()

    def _drop(self) -> None:
        if not self.dropped and not self._ending and self._send is not None:
            self.dropped = True
            self._frames.clear()
            if self._let_go is not None:
                self._let_go()
            self.task.cancel()

    def _write_soon(self) -> None:
        if self._send is not None and self._writing is None and not self.dropped:
            self._writing = asyncio.create_task(self._write(self._send))

    async def _write(self, send: Send) -> None:
        try:
            while self._frames:
                body = b"".join(self._frames)
                self._frames.clear()
                await send({"type": "http.response.body", "body": body, "more_body": True})
            if self._ending and not self._ended:
                self._ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            # The reader has left; the server tells `stay`.
            self._frames.clear()
        finally:
            self._writing = None


def _retry() -> bytes:
    return f"retry: {random.uniform(*_RETRY_SECONDS) * 1000:.0f}\n\n".encode()


def _frame(notice: Notice) -> bytes:
    """Return a server-sent event: the record, when it is archived, and a warning's time left."""
    body: dict[str, Any] = LifecycleBody.of(notice.record, now=notice.at).model_dump(
        mode="json", by_alias=True
    )
    if notice.record.archives_at is not None:
        body["archivesAt"] = iso(notice.record.archives_at)
    if notice.kind in _WARNINGS and notice.time_left is not None:
        body["timeLeftSeconds"] = round(notice.time_left.total_seconds(), 3)
    data = json.dumps(body)
    return f"id: {notice.known.text}\nevent: {notice.kind}\ndata: {data}\n\n".encode()
