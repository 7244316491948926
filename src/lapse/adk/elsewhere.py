"""Another of ADK's session services, as a hand-over and the readers of conversations ask it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.events.event import Event
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.session import Session

from lapse.adk.errors import SessionNotFoundError
from lapse.adk.private.services import user_state
from lapse.adk.private.sessions import StaleSessionError, stale_as_such
from lapse.adk.translation import copy_version
from lapse.conversations.rules import MARK, Bounds, has_mark
from lapse.conversations.service import ChangedError, RefusedError, ServiceSession
from lapse.core.errors import (
    LapseError,
    NotWithThisServiceError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from lapse.core.keys import SessionKey
from lapse.core.loops import PerLoop
from lapse.store.records import EventRecord

T = TypeVar("T")

_EXISTENCE: Final = GetSessionConfig(num_recent_events=0)
_MAY_BE_REPEATED: Final = frozenset({401, 403, 407, 408, 425, 429})
"""Answers of HTTP below 500 after which the same request may succeed.

Answers to invalid credentials are about Lapse, and not about a message."""

_REFUSALS_OF_SQL: Final = ("DataError", "IntegrityError", "ProgrammingError", "StatementError")
_OUTAGES: Final = ("OperationalError", "InterfaceError", "InternalError", "PoolTimeoutError")
_ENDING: Final = timedelta(milliseconds=200)

_log = logging.getLogger(__name__)


class Elsewhere:
    """Asks another session service, with a time-out on each call.

    A call that its time-out has ended is cancelled, and nobody waits for its end.

    Args:
        service: the other service.
        bounds: how long a call may take.
    """

    def __init__(self, service: BaseSessionService, bounds: Bounds) -> None:
        self.service = service
        self._seconds = bounds.timeout.total_seconds()
        self._late: PerLoop[set[asyncio.Task[Any]]] = PerLoop(set)

    async def close(self) -> None:
        """Wait a moment for calls that did not end in time, and close the service if it can be."""
        late = self._late.here()
        if late:
            await asyncio.wait(late, timeout=_ENDING.total_seconds())
        close = getattr(self.service, "close", None) or getattr(self.service, "aclose", None)
        if close is None:
            return
        closing = close()
        if asyncio.iscoroutine(closing):
            try:
                async with asyncio.timeout(self._seconds):
                    await closing
            except Exception as error:  # noqa: BLE001 - nothing is lost: all is stored or on its way
                _log.warning("the service of conversations did not close: %s", type(error).__name__)

    # What a hand-over asks: every error is a refusal or an outage.

    async def find(
        self, key: SessionKey, service_id: str | None, *, events: bool = True
    ) -> ServiceSession | None:
        """Return a session, as it is stored."""
        config = None if events else _EXISTENCE
        return await self._told(self._get(key, service_id or key.session_id, config))

    async def find_marked(self, key: SessionKey, mark: str) -> ServiceSession | None:
        """Return the session that a hand-over has made under an id that the service chose."""
        listing = self.service.list_sessions(app_name=key.app_name, user_id=key.user_id)
        found = await self._told(listing)
        marked = next((one for one in found.sessions if has_mark(one.state, mark)), None)
        if marked is None:
            return None
        return await self._told(self._get(key, marked.id, None))

    async def create(
        self, key: SessionKey, state: dict[str, Any], *, named: bool
    ) -> ServiceSession:
        """Create a session."""
        return await self._told(
            self.service.create_session(
                app_name=key.app_name,
                user_id=key.user_id,
                state=state,
                session_id=key.session_id if named else None,
            )
        )

    async def append(self, session: ServiceSession, event: EventRecord) -> None:
        """Append an event."""
        made = cast("Session", session)
        await self._told(self.service.append_event(made, Event.model_validate_json(event.data)))

    async def remove(self, key: SessionKey, service_id: str | None) -> None:
        """Delete a session."""
        await self._told(
            self.service.delete_session(
                app_name=key.app_name,
                user_id=key.user_id,
                session_id=service_id or key.session_id,
            )
        )

    # What readers and writers of used sessions ask: the service's own errors pass.

    async def get(
        self, key: SessionKey, service_id: str | None, config: GetSessionConfig | None
    ) -> Session | None:
        """Return a session as its reader knows it; None if the service has none of such an id.

        Raises:
            StoreUnavailableError: the service does not answer.
        """
        try:
            found = await self._asked(self._get(key, service_id or key.session_id, config))
        except ValueError:
            if service_id is not None:
                raise
            return None  # the service takes no such id, or another user has it
        return None if found is None else known_as(found, key)

    async def list(self, app_name: str, user_id: str | None) -> Sequence[Session]:
        """Return the sessions of a user, or of all users, in the service's order.

        Raises:
            StoreUnavailableError: the service does not answer.
        """
        found = await self._asked(self.service.list_sessions(app_name=app_name, user_id=user_id))
        return found.sessions

    async def user_state(self, app_name: str, user_id: str) -> dict[str, Any]:
        """Return a user's state.

        Raises:
            NotWithThisServiceError: the service cannot tell it.
        """
        asking = user_state(self.service, app_name, user_id)
        try:
            return await self._asked(asking)
        except NotImplementedError as error:
            raise NotWithThisServiceError(
                "it does not tell a user's state; read that of a session"
            ) from error

    async def append_to(self, session: Session, service_id: str | None, event: Event) -> Event:
        """Append an event as the service does, with its own detection of stale sessions.

        Raises:
            SessionNotFoundError: others have deleted the session meanwhile.
            OutcomeUnknownError: the service does not answer, and the event may be stored.
        """
        shown = session
        if service_id is not None:
            # Its lists and its state are the same objects, so that both sessions change.
            shown = session.model_copy(update={"id": service_id})
        try:
            with stale_as_such():
                return await self._asked(self.service.append_event(shown, event), in_doubt=True)
        except Exception as error:
            if not is_of_deleted(error):
                raise
            raise SessionNotFoundError(f"Session {session.id} not found.") from error
        finally:
            if shown is not session:
                copy_version(shown, session)

    def _get(
        self, key: SessionKey, service_id: str, config: GetSessionConfig | None
    ) -> Coroutine[Any, Any, Session | None]:
        return self.service.get_session(
            app_name=key.app_name, user_id=key.user_id, session_id=service_id, config=config
        )

    async def _asked(self, call: Awaitable[T], *, in_doubt: bool = False) -> T:
        """Return what the service answers; an outage is the store's kind of error."""
        kind = OutcomeUnknownError if in_doubt else StoreUnavailableError
        try:
            async with asyncio.timeout(self._seconds):
                return await call
        except Exception as error:
            if not is_outage(error):
                raise
            raise kind("the service of conversations does not answer") from error

    async def _told(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what the service answers; every error is one of those of ConversationService.

        A call that does not end when it is cancelled is left alone.
        """
        task = asyncio.create_task(call)
        late = self._late.here()
        late.add(task)
        task.add_done_callback(late.discard)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._seconds)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            task.add_done_callback(_heard)
            raise OutcomeUnknownError(
                f"the service of conversations did not answer within {self._seconds:g} s; read the "
                "session before you send anything again"
            )
        try:
            with stale_as_such():
                return task.result()
        except StaleSessionError as error:
            raise ChangedError from error
        except LapseError:
            raise
        except Exception as error:
            if is_of_deleted(error):
                raise ChangedError from error
            if is_refusal(error):
                raise RefusedError(error) from error
            raise OutcomeUnknownError(
                "the service of conversations failed; read the session before you send again"
            ) from error
        except asyncio.CancelledError as error:  # the service has cancelled itself
            raise OutcomeUnknownError(
                "the service of conversations gave up; read the session before you send again"
            ) from error


def is_refusal(error: Exception) -> bool:
    """Return whether a service says that it will never do what it was asked for.

    Everything else may be an outage, after which the same call succeeds, or may have been done.
    """
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return False  # what came was no answer of the service's
    code = _http_code(error)
    if code is not None:
        return 400 <= code < 500 and code not in _MAY_BE_REPEATED  # noqa: PLR2004 - HTTP's classes
    if isinstance(error, AlreadyExistsError | ValueError | TypeError | NotImplementedError):
        return True
    return _is_of_sqlalchemy(error, _REFUSALS_OF_SQL)


def is_outage(error: Exception) -> bool:
    """Return whether a service does not answer now."""
    if isinstance(error, TimeoutError | ConnectionError | OSError):
        return True
    code = _http_code(error)
    if code is not None:
        return code >= 500 or code in _MAY_BE_REPEATED  # noqa: PLR2004 - HTTP's classes
    names = {one.__name__ for one in type(error).__mro__}
    if type(error).__module__.startswith(("redis.", "pymongo.")):
        return bool(names & {"ConnectionError", "TimeoutError", "ConnectionFailure"})
    return _is_of_sqlalchemy(error, _OUTAGES)


def is_of_deleted(error: Exception) -> bool:
    """Return whether an append has found no row of the session that it has just read.

    ADK's DatabaseSessionService locks no row on SQLite, so that others can delete it meanwhile. Its
    SqliteSessionService looks before it writes: the event then has no session to refer to.
    """
    name = getattr(error, "sqlite_errorname", None)
    if name == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return True
    return _is_of_sqlalchemy(error, ("StaleDataError",), "sqlalchemy.orm.exc")


def _http_code(error: Exception) -> int | None:
    """Return the status with which a service over HTTP has answered; None without one."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("code", "status_code"):
            code = getattr(holder, name, None)
            if isinstance(code, int) and 100 <= code < 600:  # noqa: PLR2004 - HTTP's codes
                return int(code)
    return None


def _is_of_sqlalchemy(
    error: Exception, names: Sequence[str], module: str = "sqlalchemy.exc"
) -> bool:
    # Not imported: a service without SQL does without it, and so does Lapse.
    kinds = [getattr(sys.modules.get(module), name, None) for name in names]
    return any(isinstance(kind, type) and type(error) is kind for kind in kinds)


def known_as(session: Session, key: SessionKey) -> Session:
    """Return a session of the service as its clients know it: by Lapse's id, without the mark."""
    session.state.pop(MARK, None)
    session.id = key.session_id
    return session


def _heard(task: asyncio.Task[Any]) -> None:
    """Take note of how a late call has ended, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()
