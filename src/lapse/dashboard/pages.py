"""The operators' pages that only read. Those that change something stand in `forms.py`."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi import Query as Parameter
from starlette.responses import Response, StreamingResponse

from lapse.adk.service import LapseSessionService
from lapse.audit.json import act_csv, act_json, acts_csv_head
from lapse.audit.store import Act, AuditLog
from lapse.core.errors import StoreUnavailableError, no_such_session
from lapse.core.keys import SessionKey, visible
from lapse.core.lifecycle import Lifecycle, Status
from lapse.core.numbers import sessions as sessions_in_words
from lapse.dashboard.actions import ALLOWED, WORDS, Action
from lapse.dashboard.bulk import MOST_AT_ONCE
from lapse.dashboard.charts import SERIES, Range, change_chart
from lapse.dashboard.cookies import Operator
from lapse.dashboard.errors import PageRoute
from lapse.dashboard.login import Login
from lapse.dashboard.reader import Reader, by_status
from lapse.dashboard.rendering import SECURITY, Pages
from lapse.dashboard.retention import DONE, Retention
from lapse.dashboard.timeline import MOST_ACTS, detail_of, timeline
from lapse.dashboard.verdicts import Reading, numbers, unreachable, verdicts
from lapse.overview.json import record_json
from lapse.overview.processes import ProcessStore
from lapse.overview.store import OverviewStore, Query
from lapse.store.sessions import Sessions

_FIRST_ROWS: Final = 10
_ROWS: Final = 40
_SEARCHED: Final = 20
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


class Sort(StrEnum):
    """A column by which the rows of a page are sorted."""

    ID = "id"
    APP = "app"
    USER = "user"
    STATUS = "status"
    CREATED = "created"


SORTS: Final[Mapping[Sort, Callable[[Lifecycle], Any]]] = {
    Sort.ID: lambda record: record.key.session_id,
    Sort.APP: lambda record: record.key.app_name,
    Sort.USER: lambda record: record.key.user_id,
    Sort.STATUS: lambda record: str(record.status),
    Sort.CREATED: lambda record: record.created_at,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A list of sessions: its query or search, and the order of the page's rows."""

    query: Query
    search: str = ""
    sort: Sort | None = None
    down: bool = False


Reach = Annotated[Range, Parameter(alias="range")]


Before = Annotated[int | None, Parameter(ge=1, le=LARGEST_NUMBER)]


def page_routes(  # noqa: C901 - one function for each page
    service: LapseSessionService,
    login: Login,
    pages: Pages,
    reader: Reader,
    retention: Retention,
) -> APIRouter:
    """Return a router of the pages."""
    router = APIRouter(prefix="/lapse", route_class=PageRoute, include_in_schema=False)
    store = service.store
    authorized = Annotated[Operator, Depends(login.operator_of_page)]

    async def live(reading: Reading, reach: Range) -> dict[str, Any]:
        """Return the values of the part of the page that is refreshed in place."""
        return {
            "now": reading.overview.now,
            "unrecorded": await reader.unrecorded(),
            "verdicts": verdicts(reading),
            "numbers": numbers(reading),
            "chart": change_chart(reading.overview.counts, reading.overview.now, reach),
            "ranges": list(Range),
            "series": SERIES,
        }

    @router.get("/")
    async def overview(
        request: Request,
        operator: authorized,  # noqa: ARG001 - checks access
        reach: Reach = Range.DAY,
    ) -> Response:
        try:
            reading = await reader.reading(since=reach.length)
            curves = await reader.curves(reading.overview.now)
            counts = by_status(reading.overview)
            first = Query(Status.WAITING if counts[Status.WAITING] else None, size=_FIRST_ROWS)
            page = await OverviewStore(store).find(first)
            processes = await ProcessStore(store).processes()
        except (StoreUnavailableError, TimeoutError) as error:
            told = {"verdicts": [unreachable(str(error) or "it took too long")]}
            return pages.page(request, "down.html", status=503, **told)
        return pages.page(
            request,
            "overview.html",
            **await live(reading, reach),
            curves=curves,
            processes=processes,
            counts=counts,
            **_listing(page.records, page.next, Asked(first), reading),
        )

    @router.get("/live")
    async def fragment(
        request: Request,
        operator: authorized,  # noqa: ARG001 - checks access
        reach: Reach = Range.DAY,
    ) -> Response:
        reading = await reader.reading(since=reach.length)
        return pages.page(request, "live.html", **await live(reading, reach))

    @router.get("/sessions")
    async def sessions(  # noqa: PLR0917 - one for each parameter of the address
        request: Request,
        operator: authorized,  # noqa: ARG001 - checks access
        query: AskedQuery,
        search: Annotated[str, Parameter(alias="q", max_length=128)] = "",
        sort: Sort | None = None,
        done: str = "",
        *,
        down: bool = False,
    ) -> Response:
        reading = await reader.reading()
        asked = Asked(query, search.strip(), sort, down=down)
        records, following = await _found(OverviewStore(store), asked)
        return pages.page(
            request,
            "sessions.html",
            now=reading.overview.now,
            counts=by_status(reading.overview),
            unrecorded=await reader.unrecorded(),
            apps=await OverviewStore(store).largest_apps(most=_MOST_APPS),
            done=_done(done),
            **_listing(records, following, asked, reading),
        )

    @router.get("/help")
    async def help_page(request: Request, operator: authorized) -> Response:  # noqa: ARG001 - checks access
        return pages.page(request, "help.html")

    @router.get("/session")
    async def session(request: Request, operator: authorized, key: Key, done: str = "") -> Response:  # noqa: ARG001 - checks access
        record = await Sessions(store).lifecycle(key)
        if record is None:
            raise no_such_session(key.named)
        now = (await reader.reading()).overview.now
        acts = await AuditLog(store).acts_on(record.key, newest=MOST_ACTS)
        holds = await retention.holds_on(key)
        raw = json.dumps(record_json(record, now=now), indent=2, ensure_ascii=False)
        return pages.page(
            request,
            "session.html",
            now=now,
            record=record,
            steps=timeline(record, acts, now),
            raw="\n".join(map(visible, raw.split("\n"))),
            address=address_of,
            actions=[
                (action, WORDS[action])
                for action in ALLOWED[record.status]
                if not (holds and action is Action.DELETE)
            ],
            holds=holds,
            may_hold=retention.is_possible and not any(hold.key == key for hold in holds),
            done=_done(done),
        )

    @router.get("/acts")
    async def acts(
        request: Request,
        operator: authorized,  # noqa: ARG001 - checks access
        before: Before = None,
    ) -> Response:
        found = await AuditLog(store).acts(newest=_ACTS, before=before)
        return pages.page(
            request,
            "acts.html",
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


def unknown_pages(login: Login) -> APIRouter:
    """Return a router that answers every other path below `/lapse/` with a page for operators."""
    router = APIRouter(prefix="/lapse", route_class=PageRoute, include_in_schema=False)
    authorized = Depends(login.operator_of_page)

    @router.get("/{path:path}", dependencies=[authorized])
    async def unknown(path: str) -> Response:  # noqa: ARG001 - any
        raise HTTPException(404)

    return router


async def _found(store: OverviewStore, asked: Asked) -> tuple[Sequence[Lifecycle], str | None]:
    """Return the records that are asked for, and the `after` of the next page.

    A search finds ids that begin with the text, and sessions of the user and of the app of that
    name, the first of each; it has no next page.
    """
    if not asked.search:
        page = await store.find(asked.query)
        found, following = list(page.records), page.next
    else:
        query, text = replace(asked.query, after=None, size=_SEARCHED), asked.search
        ways = (
            replace(query, prefix=text),
            replace(query, user_id=text),
            replace(query, app_name=text),
        )
        pages = [await store.find(way) for way in ways]
        found = list({record.key: record for page in pages for record in page.records}.values())
        following = None
    if asked.sort is not None:
        found.sort(key=SORTS[asked.sort], reverse=asked.down)
    return found, following


def _listing(
    records: Sequence[Lifecycle], following: str | None, asked: Asked, reading: Reading
) -> dict[str, Any]:
    """Return the values of the list of sessions, and the function that makes its links."""
    now, query = reading.overview.now, asked.query

    def link(**changed: Any) -> str:
        sent = {
            "status": query.status and str(query.status),
            "app": query.app_name,
            "user": query.user_id,
            "prefix": query.prefix,
            "q": asked.search,
            "sort": asked.sort and str(asked.sort),
            "down": "true" if asked.down else None,
        } | changed
        return urlencode({name: str(value) for name, value in sent.items() if value})

    return {
        "records": [reading.rules.as_it_reads(record, now) for record in records],
        "query": query,
        "asked": asked,
        "sorts": list(Sort),
        "link": link,
        "next": following,
        "address": address_of,
        "offered": {status: actions[0] for status, actions in ALLOWED.items()},
        "words": WORDS,
        "most": MOST_AT_ONCE,
        "statuses": (None, Status.WAITING, Status.USED, Status.EXPIRED, Status.ARCHIVED),
    }


def _done(action: str) -> str:
    """Return the text after an action, or after one on many: `expire 12 1`; else empty."""
    name, *numbers = action.split() or [""]
    if name in DONE:
        return DONE[name]
    if name not in set(Action):
        return ""
    if len(numbers) == 2 and all(number.isdigit() and len(number) < 4 for number in numbers):  # noqa: PLR2004
        done, left = map(int, numbers)
        told = f"{WORDS[Action(name)].button}: done for {sessions_in_words(done)}"
        return f"{told}, {left:,} left as they were." if left else f"{told}."
    return WORDS[Action(name)].done


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
