"""Answers with sessions, rendered in pieces so that a large one does not block the event loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException
from google.adk.sessions.session import Session
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lapse.adk.events import RememberedEvents, read_event
from lapse.adk.private import public_fields, public_fields_of_session
from lapse.adk.settings import REMEMBERED_EVENTS
from lapse.adk.translation import are_large, is_large_event, session_of, session_read
from lapse.core.documents import is_large
from lapse.core.keys import SessionKey
from lapse.store.records import EventRecord, SessionRecord

if TYPE_CHECKING:
    from google.adk.cli.api_server import ApiServer

    from lapse.adk.service import LapseSessionService

_TURN: Final = timedelta(milliseconds=5)
"""How long an answer is rendered in the event loop; then a thread renders the rest."""

_FEW_EVENTS: Final = 100
"""A session with no more events, none of them large, is rendered in one piece, which is faster."""


def _public_json(*columns: Any) -> str:
    return _json(public_fields(read_event(EventRecord(*columns))))


RENDERED: Final = RememberedEvents(_public_json, REMEMBERED_EVENTS)
"""Events as ADK's server sends them, for the whole process."""


async def stored_session_response(record: SessionRecord) -> Response:
    """Answer as `SessionResponse` does with a stored session, whose events are not made for it.

    Each event is rendered once and remembered; only a large session is rendered whole.
    """
    if is_large(record.state) or are_large(record.events):
        return SessionResponse(await session_read(record))
    rendered = RENDERED.of_conversation(record.events)
    if rendered is None:
        rendered = [RENDERED.of(event) for event in record.events]
    head = public_fields_of_session(session_of(replace(record, events=())))
    fields = (
        f"{_json(name)}:" + (f"[{','.join(rendered)}]" if name == "events" else _json(value))
        for name, value in head.items()
    )
    return Response(f"{{{','.join(fields)}}}", media_type="application/json")


class SessionResponse(Response):
    """An answer with a session or a list of sessions, byte for byte the one of ADK's server.

    It is rendered when it is sent. With `more`, each session of a list has these fields, too, after
    ADK's own.
    """

    media_type = "application/json"

    def __init__(
        self, session: Session | list[Session], more: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._session = session
        self._more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Render and send."""
        self.body = await self._rendered()
        self.raw_headers.insert(0, (b"content-length", str(len(self.body)).encode()))
        await super().__call__(scope, receive, send)

    async def _rendered(self) -> bytes:
        if isinstance(self._session, list):
            sessions, pieces = self._session, _pieces_of_all(self._session, self._more)
        elif _is_small(self._session):
            return _json(public_fields_of_session(self._session)).encode()
        else:
            sessions, pieces = [self._session], _pieces(self._session)
        rendered: list[str] = []
        if not any(is_large(session.state) for session in sessions):
            turn_ends = time.perf_counter() + _TURN.total_seconds()
            for piece in pieces:
                rendered.append(piece)
                if time.perf_counter() > turn_ends:
                    break
            else:
                return "".join(rendered).encode()
        return await asyncio.to_thread(lambda: "".join([*rendered, *pieces]).encode())


def _is_small(session: Session) -> bool:
    events = session.events
    return (
        len(events) <= _FEW_EVENTS
        and not is_large(session.state)
        and not any(map(is_large_event, events))
    )


def _pieces_of_all(
    sessions: list[Session], more: Sequence[Mapping[str, Any]] | None
) -> Iterator[str]:
    yield "["
    for number, session in enumerate(sessions):
        if number:
            yield ","
        yield from _pieces(session, {} if more is None else more[number])
    yield "]"


def _pieces(session: Session, more: Mapping[str, Any] = {}) -> Iterator[str]:
    opening = "{"
    for name, value in public_fields_of_session(session.model_copy(update={"events": []})).items():
        yield f"{opening}{_json(name)}:"
        opening = ","
        if name == "events":
            yield from _list("[", (_json(public_fields(event)) for event in session.events), "]")
        elif name == "state":
            yield from _list("{", (f"{_json(k)}:{_json(v)}" for k, v in value.items()), "}")
        else:
            yield _json(value)
    for name, value in more.items():
        yield f",{_json(name)}:{_json(value)}"
    yield "}"


def _list(opening: str, entries: Iterator[str], closing: str) -> Iterator[str]:
    """Yield entries, each with what stands before it."""
    before = opening
    for entry in entries:
        yield before + entry
        before = ","
    yield closing if before == "," else opening + closing


def _json(value: Any) -> str:
    """Return JSON as Starlette's JSONResponse writes it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def stored_get(
    service: LapseSessionService, server: ApiServer
) -> Callable[[str, str, str], Awaitable[Response]] | None:
    """Return what answers like ADK's endpoint `get_session`, by `stored_session_response`.

    None if the service reads sessions in a way of its own.
    """
    from lapse.adk.service import LapseSessionService

    if type(service).get_session is not LapseSessionService.get_session:
        return None

    async def get_session(app_name: str, user_id: str, session_id: str) -> Response:
        record = await service.stored_session(SessionKey(app_name, user_id, session_id))
        if record is None:
            raise HTTPException(404, detail="Session not found")
        server.current_app_name_ref.value = app_name
        return await stored_session_response(record)

    return get_session
