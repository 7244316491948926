"""A user's sessions with their records: by the service, and as ADK's list with parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from google.adk.sessions.session import Session
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from lapse.adk.answers import SessionResponse
from lapse.adk.endpoints import SESSIONS_PATH
from lapse.adk.translation import sessions_read
from lapse.auth.principals import is_foreign
from lapse.core.errors import InvalidValueError
from lapse.core.keys import EVALUATION_PREFIXES, SessionKey, can_exist
from lapse.core.lifecycle import Lifecycle, Status
from lapse.core.request import decode_parameters
from lapse.overview.json import record_json
from lapse.overview.listing import ListStore
from lapse.store.database import Database

if TYPE_CHECKING:
    from lapse.adk.service import LapseSessionService

_STATUS: Final = "status"
_LIFECYCLE: Final = "lifecycle"
_TRUTHS: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session without its events, and its record at the moment `at` of the store's clock."""

    session: Session
    lifecycle: Lifecycle
    at: datetime


async def listed_sessions(
    store: Database, app_name: str, user_id: str, status: Collection[str] | None
) -> list[ListedSession]:
    """Return what `LapseSessionService.list_with_lifecycle` promises.

    Raises:
        InvalidValueError: there is no such status.
    """
    statuses = None if status is None else _statuses(status)
    if is_foreign(user_id) or not can_exist(SessionKey(app_name, user_id, "-")):
        return []
    found = await ListStore(store).list_with_records(app_name, user_id, statuses)
    sessions = await sessions_read([one.session for one in found])
    return [
        ListedSession(session, one.lifecycle, one.at)
        for session, one in zip(sessions, found, strict=True)
    ]


class ListRoute(Route):
    """Answers ADK's list of sessions if the query has `status` or `lifecycle`.

    Other requests do not match and reach ADK's own route.
    """

    def __init__(self, service: LapseSessionService) -> None:
        async def list_sessions(request: Request) -> Response:
            decode_parameters(request.scope)
            status, with_lifecycle = _asked(request.query_params)
            found = [
                one
                for one in await service.list_with_lifecycle(**request.path_params, status=status)
                if not one.session.id.startswith(EVALUATION_PREFIXES)  # ADK's list leaves them out
            ]
            more = [{_LIFECYCLE: record_json(one.lifecycle, one.at)} for one in found]
            sessions = [one.session for one in found]
            return SessionResponse(sessions, more if with_lifecycle else None)

        super().__init__(SESSIONS_PATH, list_sessions, methods=["GET"], include_in_schema=False)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only requests with one of the two parameters."""
        query: bytes = scope.get("query_string", b"")
        if not query or not {_STATUS, _LIFECYCLE} & QueryParams(query).keys():
            return Match.NONE, {}
        return super().matches(scope)


def _asked(query: QueryParams) -> tuple[list[str] | None, bool]:
    """Return which statuses a query asks for, and whether for records.

    Raises:
        InvalidValueError: a parameter has a value that it cannot have.
    """
    status = None
    if _STATUS in query:
        names = ",".join(query.getlist(_STATUS)).split(",")
        status = [name.strip() for name in names]
    wish = query.get(_LIFECYCLE, "false")
    if wish not in _TRUTHS:
        raise InvalidValueError(_LIFECYCLE, f"must be true or false, not {wish!r:.40}")
    return status, _TRUTHS[wish]


def _statuses(names: Iterable[str]) -> list[Status]:
    known = {str(status): status for status in Status}
    wrong = next((name for name in names if name not in known), None)
    if wrong is not None:
        raise InvalidValueError(
            _STATUS, f"must be some of {', '.join(known)}, with commas between, not {wrong!r:.40}"
        )
    return [known[name] for name in names]
