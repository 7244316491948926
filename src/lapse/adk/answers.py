"""Answers with sessions, rendered in pieces so that a large one does not block the event loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException
from google.adk.sessions.session import Session
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lapse.adk.endpoints import Endpoint, around_endpoint
from lapse.adk.events import RememberedEvents, read_event
from lapse.adk.private.server_routes import is_endpoint_of_server
from lapse.adk.private.versions import is_compared
from lapse.adk.private.wire import public_fields, public_fields_of_session, redacted
from lapse.adk.settings import REMEMBERED_EVENTS
from lapse.adk.translation import are_large, is_large_event, session_of, session_read, sessions_read
from lapse.core.documents import is_large
from lapse.core.keys import EVALUATION_PREFIXES, SessionKey
from lapse.store.records import EventRecord, SessionRecord

if TYPE_CHECKING:
    from lapse.adk.private.servers import ApiServer
    from lapse.adk.service import LapseSessionService

_TURN: Final = timedelta(milliseconds=5)
"""How long an answer is rendered in the event loop; then a thread renders the rest."""

_FEW_EVENTS: Final = 100
"""A session with no more events, none of them large, is rendered in one piece, which is faster."""

_FEW_SESSIONS: Final = 100
_FEW_VALUES: Final = 20
_SHORT: Final = 200
"""A list of no more sessions, with no more values of no more characters, is rendered at once."""


def _public_json(*columns: Any) -> str:
    return _json(public_fields(read_event(EventRecord(*columns))))


RENDERED: Final = RememberedEvents(_public_json, REMEMBERED_EVENTS)
"""Events as ADK's server sends them, for the whole process."""


async def stored_session_response(record: SessionRecord) -> Response:
    """Answer with a stored session as `SessionResponse` does, without making its events.

    Each event is rendered once and remembered; only a large session is rendered whole.
    """
    if is_large(record.state) or are_large(record.events):
        return SessionResponse(await session_read(record))
    rendered = RENDERED.of_conversation(record.events)
    if rendered is None:
        rendered = [RENDERED.of(event) for event in record.events]
    if _is_plain(record.state):
        return Response(_text_of_record(record, ",".join(rendered)), media_type="application/json")
    head = public_fields_of_session(session_of(replace(record, events=())))
    fields = (
        f"{_json(name)}:" + (f"[{','.join(rendered)}]" if name == "events" else _json(value))
        for name, value in head.items()
    )
    return Response(f"{{{','.join(fields)}}}", media_type="application/json")


async def stored_list_response(records: Sequence[SessionRecord]) -> Response:
    """Answer with stored sessions, without events, as `SessionResponse` does.

    ADK's models are made only if there are many sessions, or if one's state is more than a few
    plain values.
    """
    if len(records) > _FEW_SESSIONS or not all(_is_plain(record.state) for record in records):
        return SessionResponse(await sessions_read(records))
    listed = f"[{','.join(map(_text_of_record, records))}]"
    return Response(listed, media_type="application/json")


def _text_of_record(record: SessionRecord, events: str = "") -> str:
    return _text_of(record.key, record.state, record.revision.update_time.timestamp(), events)


def _text_of(key: Sequence[str], state: dict[str, Any], at: float, events: str = "") -> str:
    """Return a session of plain state as ADK's server sends it, with the JSON of its events.

    One text with a few values in it is made in a fraction of the time of a model and its JSON.
    """
    app_name, user_id, session_id = map(encode_basestring, key)
    shown = _json(redacted(state)) if state else "{}"
    return (
        f'{{"id":{session_id},"appName":{app_name},"userId":{user_id},"state":{shown},'
        f'"events":[{events}],"lastUpdateTime":{at!r}}}'
    )


def _is_plain(state: Mapping[str, Any]) -> bool:
    return len(state) <= _FEW_VALUES and all(
        type(value) in {bool, int} or (type(value) is str and len(value) <= _SHORT)
        for value in state.values()
    )


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
        elif is_compared() and not self._session.events and _is_plain(self._session.state):
            one = self._session
            key = one.app_name, one.user_id, one.id
            return _text_of(key, one.state, one.last_update_time).encode()
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
        told = {} if more is None else more[number]
        if _is_small(session):
            yield _json({**public_fields_of_session(session), **told})
        else:
            yield from _pieces(session, told)
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


_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""Returns JSON as Starlette's JSONResponse writes it."""


def join_stored_sessions(
    routes: Sequence[object], service: LapseSessionService, server: ApiServer
) -> None:
    """Have ADK's endpoints answer `get_session` and `list_sessions` by what is stored.

    Each is left as it is if ADK's server reads from another service, such as one around this one,
    if the service reads in a way of its own, or if answers were not compared for this ADK.
    """
    from lapse.adk.service import LapseSessionService

    if server.session_service is not service or not is_compared():
        return

    async def get_session(app_name: str, user_id: str, session_id: str) -> Response:
        record = await service.stored_session(SessionKey(app_name, user_id, session_id))
        if record is None:
            raise HTTPException(404, detail="Session not found")
        server.current_app_name_ref.value = app_name
        return await stored_session_response(record)

    async def list_sessions(app_name: str, user_id: str) -> Response:
        records = await service.stored_list(app_name, user_id)
        return await stored_list_response(
            [one for one in records if not one.key.session_id.startswith(EVALUATION_PREFIXES)]
        )

    joined: dict[str, Endpoint] = {"get_session": get_session, "list_sessions": list_sessions}
    for name, endpoint in joined.items():
        if getattr(type(service), name) is not getattr(LapseSessionService, name):
            continue
        for route in routes:
            if is_endpoint_of_server(route, name):
                around_endpoint(route, partial(_instead, endpoint))


def _instead(endpoint: Endpoint, _adks: Endpoint) -> Endpoint:
    return endpoint
