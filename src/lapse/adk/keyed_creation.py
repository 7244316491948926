"""Creations of sessions by requests with an idempotency key."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.adk.context import observe_appends, observing_appends
from lapse.adk.endpoints import SESSIONS_PATH
from lapse.core.keys import SessionKey
from lapse.core.request import body_of, decode_parameters
from lapse.idempotency.request import keyed_request, sent_key
from lapse.idempotency.rules import KeyedRequest, KeyRules
from lapse.idempotency.store import IdempotencyStore
from lapse.store.database import Database
from lapse.store.operation import NO_SESSION
from lapse.store.records import Result, SessionRecord

if TYPE_CHECKING:
    from google.adk.events.event import Event

Create = Callable[..., Coroutine[Any, Any, Result[SessionRecord]]]
"""`Lobby.create`, or what takes its place."""

_PATHS: Final = {SESSIONS_PATH, f"{SESSIONS_PATH}/{{session_id}}"}
_OF_ADK: Final = "google.adk."

_current: ContextVar[KeyedCreation | None] = ContextVar("lapse_keyed_creation", default=None)


class KeyedCreation:
    """A creation with an idempotency key, and the appends of the events in its request.

    Args:
        asked: the request.
        event_ids: of each event in the request its id; empty where the request names none.
    """

    message_stored = False  # an agent that could lose its answer is not at work here

    def __init__(self, asked: KeyedRequest, event_ids: Sequence[str] = ()) -> None:
        self._asked = asked
        self._event_ids = list(event_ids)
        self._session_id = ""

    async def made_before(self, store: Database, key: SessionKey) -> SessionRecord | None:
        """Return the session that an earlier request has made; see `created_before`."""
        made = await IdempotencyStore(store).created_before(key, self._asked)
        if made is not None:
            self._is(made.key)
        return made

    async def handed_over(self, store: Database, key: SessionKey) -> SessionKey | None:
        """Return the key of the session that an earlier request made in another service."""
        made = await IdempotencyStore(store).created_id(self._asked)
        if made is None:
            return None
        self._is(key._replace(session_id=made))
        return key._replace(session_id=made)

    def creating(self, store: Database) -> Create:
        """Return the function that creates a session and keeps the idempotency key with it."""
        keys, asked = IdempotencyStore(store), self._asked

        def create(key: SessionKey, **more: Any) -> Coroutine[Any, Any, Result[SessionRecord]]:
            return keys.create_once(key, asked, **more)

        return create

    async def made(self, store: Database, key: SessionKey, made: SessionKey) -> None:
        """Note the session that was made; keep the idempotency key if the session existed."""
        self._is(made)
        if made != key:
            await IdempotencyStore(store).keep_created(made, self._asked)

    def _is(self, key: SessionKey) -> None:
        self._session_id = key.session_id
        observe_appends(key, self)

    async def before_append(self, event: Event) -> bool:
        """Give an event of the request the id that it has in each repeat."""
        given = self._event_ids.pop(0) if self._event_ids else ""
        event.id = given or self._asked.event_id(f"{self._session_id} {len(self._event_ids)}")
        return True

    def after_append(self, event: Event) -> None:
        """Do nothing: a repeat finds the event by its id."""


def current_creation() -> KeyedCreation | None:
    """Return the creation that the present request is, if it has an idempotency key."""
    return _current.get()


@contextmanager
def _creating(creation: KeyedCreation) -> Iterator[None]:
    token = _current.set(creation)
    try:
        with observing_appends(NO_SESSION, creation):
            yield
    finally:
        _current.reset(token)


def key_creates(routes: Iterable[object], rules: KeyRules) -> None:
    """Have ADK's routes that create a session take the header `Idempotency-Key`."""
    for route in routes:
        if (
            isinstance(route, APIRoute)
            and route.path in _PATHS
            and "POST" in (route.methods or ())
            and route.endpoint.__module__.startswith(_OF_ADK)
        ):
            route.app = _keyed(route.app, rules)


def _keyed(answer: ASGIApp, rules: KeyRules) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if sent_key(scope) is None:
            await answer(scope, receive, send)
            return
        decode_parameters(scope)
        params = scope["path_params"]
        user = SessionKey(params["app_name"], params["user_id"], "")
        asked = await keyed_request(scope, rules, user, f"create {params.get('session_id', '')}")
        assert asked is not None, "the header was sent"
        with _creating(KeyedCreation(asked, _event_ids(scope))):
            await answer(scope, receive, send)

    return app


def _event_ids(scope: Scope) -> list[str]:
    """Return the id of each event in the body of a creation; empty where it names none."""
    body = body_of(scope)
    events = body.fields.get("events") if body is not None else None
    named = [event.get("id") for event in events or () if isinstance(event, dict)]
    return [given if isinstance(given, str) else "" for given in named]
