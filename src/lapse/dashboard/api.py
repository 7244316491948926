"""The operators' API: what the pages show and change, as JSON."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from fastapi import Query as Parameter

from lapse.adk.service import LapseSessionService
from lapse.audit.json import act_json
from lapse.audit.store import AuditLog
from lapse.core.clock import iso
from lapse.core.errors import StoreUnavailableError, no_such_session
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle
from lapse.core.minutes import spelt
from lapse.dashboard.actions import Action, Actions
from lapse.dashboard.cookies import Operator
from lapse.dashboard.login import Login
from lapse.dashboard.pages import AskedQuery, Before, Key
from lapse.dashboard.reader import TIMEOUT, Reader
from lapse.dashboard.retention import Retention
from lapse.dashboard.timeline import MOST_ACTS, timeline
from lapse.dashboard.verdicts import SHOWN, numbers, verdicts
from lapse.overview.json import brake_json, dues_json, overview_json, record_json
from lapse.overview.store import OverviewStore
from lapse.retention.json import standing_json
from lapse.store.sessions import Sessions
from lapse.sweep.store import SweepStore

_MOST: Final = 500
_MOST_APPS: Final = 200
"""How many apps the statistics list; their size must not grow with what a store has counted."""

Document = dict[str, Any]


def api_routes(  # noqa: C901 - one function for each route
    service: LapseSessionService,
    login: Login,
    reader: Reader,
    actions: Actions,
    retention: Retention,
) -> APIRouter:
    """Return a router of `/lapse/api/`; every route answers 404 to everybody but operators."""
    router = APIRouter(prefix="/lapse/api", tags=["operators"])
    store = service.store
    authorized = Annotated[Operator, Depends(login.operator_of_api)]

    async def record_of(key: SessionKey) -> Lifecycle:
        record = await Sessions(store).lifecycle(key)
        if record is None:
            raise no_such_session(key.named)
        return record

    @router.get("/stats")
    async def stats(operator: authorized) -> Document:  # noqa: ARG001 - checks access
        """Return verdicts, numbers, sessions by status and app, and the changes of 24 hours.

        `retention` is null where another session service has the used sessions.
        """
        try:
            reading = await reader.reading(by_app=True)
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"no answer within {spelt(TIMEOUT)}; try again in a moment"
            ) from error
        unrecorded = await reader.unrecorded()
        return overview_json(
            reading.overview,
            SHOWN,
            most_apps=_MOST_APPS,
            unrecorded=None if unrecorded is None else unrecorded.found,
        ) | {
            "retention": standing_json(await retention.state()) if retention.is_possible else None,
            "tookSeconds": reading.took.total_seconds(),
            "verdicts": [
                {"name": told.name, "isWell": told.is_well, "sentence": told.sentence}
                | ({} if told.is_well else {"reason": told.reason, "remedies": told.remedies})
                for told in verdicts(reading)
            ],
            "numbers": [
                {"label": told.label, "value": told.value, "isWrong": told.is_wrong}
                for told in numbers(reading)
            ],
        }

    @router.get("/sessions")
    async def sessions(
        operator: authorized,  # noqa: ARG001 - checks access
        query: AskedQuery,
    ) -> Document:
        """Return a page of sessions; `next` is the `after` of the following page."""
        page = await OverviewStore(store).find(query)
        now = (await reader.reading()).overview.now
        records = [store.rules.as_it_reads(record, now) for record in page.records]
        return {"sessions": [record_json(record, now) for record in records], "next": page.next}

    @router.get("/session")
    async def session(operator: authorized, key: Key) -> Document:  # noqa: ARG001 - checks access
        """Return a session's record, its timeline, and its acts in the audit log."""
        record = await record_of(key)
        now = (await reader.reading()).overview.now
        acts = await AuditLog(store).acts_on(record.key, newest=MOST_ACTS)
        steps = [
            {
                "at": iso(step.at),
                "title": step.title,
                "tense": str(step.tense),
                "note": step.note,
                "afterSeconds": None if step.after is None else step.after.total_seconds(),
            }
            for step in timeline(record, acts, now)
        ]
        return record_json(record, now) | {
            "timeline": steps,
            "acts": [act_json(act) for act in acts],
        }

    @router.post("/session/{action}")
    async def act(operator: authorized, action: Action, key: Key) -> Document:
        """Change a session as its action says, and return its record after the change."""
        record = await actions.do(action, key, operator)
        now = (await reader.reading()).overview.now
        return {"deleted": True} if record is None else record_json(record, now)

    @router.get("/sweep")
    async def dry_run(operator: authorized) -> Document:  # noqa: ARG001 - checks access
        """Return what a sweep would do now, and the brake that is set."""
        dues = await actions.dues()
        held = None if dues.brake is None else brake_json(dues.brake)
        return dues_json(dues) | {"brake": held}

    @router.post("/sweep")
    async def sweep(operator: authorized) -> Document:
        """Sweep and return what was changed; `ended` is false if more is due."""
        report = await actions.sweep(operator)
        return {**report.counts(), "ended": not report.full}

    @router.post("/sweep/confirm")
    async def confirm(operator: authorized) -> Document:
        """Release the brake that is set."""
        brake = await SweepStore(store).brake()
        return {"released": brake is not None and await actions.release(brake, operator)}

    @router.get("/acts")
    async def acts(
        operator: authorized,  # noqa: ARG001 - checks access
        newest: Annotated[int, Parameter(ge=1, le=_MOST)] = 50,
        before: Before = None,
    ) -> Document:
        """Return the newest acts; `next` is the `before` of the next older ones."""
        found = await AuditLog(store).acts(newest=newest, before=before)
        following = found[-1].number if len(found) == newest else None
        return {"acts": [act_json(act) for act in found], "next": following}

    return router
