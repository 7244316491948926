"""The operators' pages that only read. Those that change something stand in `forms.py`."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi import Query as Parameter
from starlette.responses import Response, StreamingResponse

from lapse.adk.service import LapseSessionService
from lapse.audit.json import act_csv, act_json, acts_csv_head
from lapse.audit.store import Act, AuditLog
from lapse.core.errors import NoSuchSessionError, StoreUnavailableError
from lapse.core.keys import SessionKey, visible
from lapse.core.lifecycle import Status
from lapse.dashboard.actions import ALLOWED, WORDS, Action
from lapse.dashboard.charts import SERIES, day_chart
from lapse.dashboard.cookies import Operator
from lapse.dashboard.errors import PageRoute
from lapse.dashboard.login import Login
from lapse.dashboard.options import OperatorOptions
from lapse.dashboard.reader import Reader, by_status
from lapse.dashboard.rendering import SECURITY, Pages
from lapse.dashboard.timeline import MOST_ACTS, detail_of, timeline
from lapse.dashboard.verdicts import Reading, numbers, unreachable, verdicts
from lapse.overview.json import record_json
from lapse.overview.store import OverviewStore, Page, Query
from lapse.store.sessions import Sessions

_FIRST_ROWS: Final = 10
_ROWS: Final = 50
_ACTS: Final = 50
_MOST_APPS: Final = 100
"""How many apps the filter of a list proposes; any other can be typed."""

LARGEST_NUMBER: Final = 2**63 - 1
"""The largest number that an act can have."""

_EXPORTED_AT_ONCE: Final = 500


def session_key(app: str, user: str, id: str) -> SessionKey:  # noqa: A002 - the parameter's name
    """Return the key in an address's query; the path cannot hold it: ids may have any character."""
    return SessionKey(app, user, id)


Key = Annotated[SessionKey, Depends(session_key)]


def asked_query(
    status: Status | None = None,
    app: str = "",
    user: str = "",
    prefix: str = "",
    after: str = "",
    *,
    size: Annotated[int, Parameter(ge=1, le=500)] = _ROWS,
) -> Query:
    """Return the query for sessions in an address; an empty field does not filter."""
    return Query(status, app or None, user or None, prefix or None, after or None, size)


AskedQuery = Annotated[Query, Depends(asked_query)]


Before = Annotated[int | None, Parameter(ge=1, le=LARGEST_NUMBER)]


def page_routes(  # noqa: C901 - one function for each page
    service: LapseSessionService,
    options: OperatorOptions,
    login: Login,
    pages: Pages,
    reader: Reader,
) -> APIRouter:
    """Return a router of the pages."""
    router = APIRouter(prefix="/lapse", route_class=PageRoute, include_in_schema=False)
    store = service.store
    authorized = Annotated[Operator, Depends(login.operator_of_page)]

    def common(operator: Operator) -> dict[str, Any]:
        return {
            "operator": operator,
            "form_token": login.signatures.form_token(operator.session),
            "store": options.store,
        }

    async def live(reading: Reading) -> dict[str, Any]:
        """Return the values of the part of the page that is refreshed in place."""
        return {
            "now": reading.overview.now,
            "verdicts": verdicts(reading),
            "numbers": numbers(reading),
            "day": day_chart(reading.overview.counts, reading.overview.now),
            "series": SERIES,
        }

    @router.get("/")
    async def overview(request: Request, operator: authorized) -> Response:
        first = Query(status=Status.WAITING, size=_FIRST_ROWS)
        try:
            reading = await reader.reading()
            curves = reader.curves(reading.overview.now)
            page = await OverviewStore(store).find(first)
        except (StoreUnavailableError, TimeoutError) as error:
            told = {"verdicts": [unreachable(str(error) or "it took too long")]}
            return pages.page(request, "down.html", status=503, **common(operator), **told)
        return pages.page(
            request,
            "overview.html",
            **common(operator),
            **await live(reading),
            curves=curves,
            counts=by_status(reading.overview),
            **_listing(page, first, reading),
        )

    @router.get("/live")
    async def fragment(request: Request, operator: authorized) -> Response:  # noqa: ARG001 - checks access
        return pages.page(request, "live.html", **await live(await reader.reading()))

    @router.get("/sessions")
    async def sessions(
        request: Request,
        operator: authorized,
        query: AskedQuery,
        done: str = "",
    ) -> Response:
        reading = await reader.reading()
        page = await OverviewStore(store).find(query)
        return pages.page(
            request,
            "sessions.html",
            **common(operator),
            now=reading.overview.now,
            counts=by_status(reading.overview),
            done=_done(done),
            **_listing(page, query, reading),
        )

    @router.get("/session")
    async def session(request: Request, operator: authorized, key: Key, done: str = "") -> Response:
        record = await Sessions(store).lifecycle(key)
        if record is None:
            raise NoSuchSessionError(f"session {key.named} does not exist")
        now = (await reader.reading()).overview.now
        acts = await AuditLog(store).acts_on(record.key, newest=MOST_ACTS)
        raw = json.dumps(record_json(record, now=now), indent=2, ensure_ascii=False)
        return pages.page(
            request,
            "session.html",
            **common(operator),
            now=now,
            record=record,
            steps=timeline(record, acts, now),
            raw="\n".join(map(visible, raw.split("\n"))),
            address=address_of,
            actions=[(action, WORDS[action]) for action in ALLOWED[record.status]],
            done=_done(done),
        )

    @router.get("/acts")
    async def acts(request: Request, operator: authorized, before: Before = None) -> Response:
        found = await AuditLog(store).acts(newest=_ACTS, before=before)
        return pages.page(
            request,
            "acts.html",
            **common(operator),
            acts=found,
            details=detail_of,
            older=found[-1].number if len(found) == _ACTS else None,
            is_first=before is None,
        )

    @router.get("/acts.json")
    async def acts_json(operator: authorized) -> Response:  # noqa: ARG001 - checks access
        return _download(
            _exported(AuditLog(store).acts, _json_line), "application/x-ndjson", "acts.json"
        )

    @router.get("/acts.csv")
    async def acts_csv(operator: authorized) -> Response:  # noqa: ARG001 - checks access
        exported = _exported(AuditLog(store).acts, act_csv, acts_csv_head())
        return _download(exported, "text/csv", "acts.csv")

    return router


def address_of(key: SessionKey) -> str:
    """Return the query of a session's address: `app`, `user` and `id`."""
    return urlencode({"app": key.app_name, "user": key.user_id, "id": key.session_id})


def _listing(page: Page, query: Query, reading: Reading) -> dict[str, Any]:
    """Return the values of the list of sessions, and the function that makes its links."""
    now = reading.overview.now

    def link(status: Status | None = query.status, after: str | None = None) -> str:
        asked = {
            "status": status and str(status),
            "app": query.app_name,
            "user": query.user_id,
            "prefix": query.prefix,
            "after": after,
        }
        return urlencode({name: value for name, value in asked.items() if value})

    return {
        "records": [reading.rules.as_it_reads(record, now) for record in page.records],
        "query": query,
        "link": link,
        "next": page.next,
        "address": address_of,
        "offered": {status: actions[0] for status, actions in ALLOWED.items()},
        "words": WORDS,
        "statuses": (None, Status.WAITING, Status.USED, Status.EXPIRED),
        "apps": reading.overview.largest_apps(_MOST_APPS),
    }


def _done(action: str) -> str:
    """Return the text after an action; empty if `action` is not one."""
    return WORDS[Action(action)].done if action in set(Action) else ""


async def _exported(
    read: Callable[..., Any], line: Callable[[Act], str], head: str = ""
) -> AsyncIterator[str]:
    """Yield all acts as lines, the newest first."""
    yield head
    before: int | None = None
    while found := await read(newest=_EXPORTED_AT_ONCE, before=before):
        acts: Sequence[Act] = found
        yield "".join(map(line, acts))
        before = acts[-1].number


def _json_line(act: Act) -> str:
    return json.dumps(act_json(act)) + "\n"


def _download(lines: AsyncIterator[str], media_type: str, name: str) -> Response:
    headers = SECURITY | {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=media_type, headers=headers)
