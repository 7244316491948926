"""The operators' pages of retention: policy and confirmation, and what is on hold."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from lapse.check.thresholds import is_retention_behind
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from lapse.dashboard.actions import WORDS
from lapse.dashboard.cookies import Operator
from lapse.dashboard.errors import PageRoute
from lapse.dashboard.forms import Form, form_sender, redirect
from lapse.dashboard.login import Login
from lapse.dashboard.pages import address_of
from lapse.dashboard.reader import Reader
from lapse.dashboard.rendering import Pages
from lapse.dashboard.retention import DONE, Preview, Retention
from lapse.dashboard.retention_api import Scope
from lapse.dashboard.words import span
from lapse.overview.store import OverviewStore, Query
from lapse.retention.exemptions import LONGEST_REASON
from lapse.retention.json import ages, by_app, due_by_age, due_by_week
from lapse.retention.levels import MOST_COUNTED
from lapse.retention.rules import Limits, Policy
from lapse.retention.state import RetentionState
from lapse.retention.store import Falling
from lapse.store.database import Database

_ROWS: Final = 10
_HOLDS: Final = 20
_APPS: Final = 20
"""A page is small with any number of holds and apps."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a table with a bar: `length` is its share of the longest, in per cent."""

    name: str
    sessions: int
    length: float


def retention_pages(
    store: Database, login: Login, pages: Pages, reader: Reader, retention: Retention
) -> APIRouter:
    """Return a router of the pages of retention, and of their forms."""
    router = APIRouter(prefix="/lapse", route_class=PageRoute, include_in_schema=False)
    authorized = Annotated[Operator, Depends(login.operator_of_page)]
    sender = Annotated[Operator, Depends(form_sender(login))]

    @router.get("/retention")
    async def retention_page(
        request: Request,
        operator: authorized,  # noqa: ARG001 - checks access
        done: str = "",
    ) -> Response:
        state, reading = await retention.state(), await reader.reading()
        holds = await retention.holds()
        archived = await OverviewStore(store).find(Query(Status.ARCHIVED, size=_ROWS))
        return pages.page(
            request,
            "retention.html",
            now=reading.overview.now,
            done=DONE.get(done, ""),
            **_state(state),
            **_due(await retention.preview(state)),
            enforced=store.rules.enforced,
            is_behind=is_retention_behind(state.overdue),
            brake=reading.overview.brake,
            holds=holds[:_HOLDS],
            held=len(holds),
            archived=archived.records,
            pinned=await retention.pinned(_ROWS),
            words=WORDS,
            address=address_of,
        )

    @router.get("/retention/confirm")
    async def look(request: Request, operator: authorized) -> Response:  # noqa: ARG001 - checks access
        state = await retention.state()
        return pages.page(
            request,
            "retention_confirm.html",
            now=state.levels.now,
            enforced=store.rules.enforced,
            **_state(state),
            **_due(await retention.preview(state, anew=True)),
        )

    @router.post("/retention/confirm")
    async def confirm(request: Request, operator: sender, form: Form) -> Response:
        changed = await retention.confirm(form.get("digest", ""), operator)
        return redirect(request, f"/retention?done={'confirmed' if changed else 'was-confirmed'}")

    @router.get("/hold")
    async def hold_form(
        request: Request,
        operator: authorized,  # noqa: ARG001 - checks access
        user: str = "",
        app: str = "",
        id: str = "",  # noqa: A002 - the parameter's name
    ) -> Response:
        await retention.state()  # answers where there is no retention
        key = SessionKey(app, user, id)
        return pages.page(request, "hold.html", key=key, address=address_of, longest=LONGEST_REASON)

    @router.post("/hold")
    async def hold(request: Request, operator: sender, form: Form) -> Response:
        key = SessionKey(form.get("app", ""), form.get("user", ""), form.get("id", ""))
        changed = await retention.hold(key, form.get("reason", ""), operator)
        return redirect(request, _after(key, "held" if changed else "was-held"))

    @router.get("/hold/release")
    async def release_form(request: Request, operator: authorized, key: Scope) -> Response:  # noqa: ARG001 - checks access
        found = [hold for hold in await retention.holds(key.user_id) if hold.key == key]
        return pages.page(
            request,
            "release.html",
            key=key,
            hold=found[0] if found else None,
            address=address_of,
        )

    @router.post("/hold/release")
    async def release(request: Request, operator: sender, key: Scope) -> Response:
        changed = await retention.release(key, operator)
        return redirect(request, _after(key, "released" if changed else "was-released"))

    return router


def _after(key: SessionKey, done: str) -> str:
    """Return the page that follows an act: that of the session, or that of all holds."""
    if key.session_id:
        return f"/session?{address_of(key)}&done={done}"
    return f"/retention?done={done}"


def _state(state: RetentionState) -> dict[str, Any]:
    return {
        "state": state,
        "levels": state.levels,
        "most": MOST_COUNTED,
        "limits": [] if state.policy is None else _limits(state.policy),
        "more_limits": 0 if state.policy is None else max(0, len(state.policy.apps) - _APPS),
    }


def _limits(policy: Policy) -> Sequence[tuple[str, Sequence[str]]]:
    """Return what a policy says, as rows of a table."""
    apps = [(app, _told(limits)) for app, limits in list(policy.apps.items())[:_APPS]]
    return [*apps, ("all other apps" if apps else "all apps", _told(policy.default))]


def _told(limits: Limits) -> Sequence[str]:
    spans = (limits.idle, limits.age, limits.archive)
    per_user = "no limit" if limits.per_user is None else f"{limits.per_user:,}"
    awaiting = "as long as it awaits" if limits.awaiting is None else span(limits.awaiting)
    return (*("never" if one is None else span(one) for one in spans), awaiting, per_user)


def _due(preview: Preview | None) -> dict[str, Any]:
    """Return what a policy would take and when, as rows of tables."""
    if preview is None:
        return {"preview": None, "apps": [], "by_week": [], "by_age": []}
    weeks = due_by_week(preview.found)
    names = ["now", *(f"week {week}" for week in range(1, len(weeks) - 1)), "later or never"]
    apps = sorted(by_app(preview.found).items(), key=lambda app: -_numbers(app[1])[0])
    rows = [(app, _numbers(found)) for app, found in sorted(apps[:_APPS])]
    if others := [one for _, found in apps[_APPS:] for one in found]:
        rows.append((f"{len(apps) - _APPS:,} smaller apps", _numbers(others)))
    return {
        "preview": preview,
        "apps": rows,
        "by_week": _bars(names[:-1], weeks[:-1]),
        "by_age": _bars(ages(), due_by_age(preview.found)),
    }


def _numbers(found: Sequence[Falling]) -> Sequence[int]:
    """Return how many sessions there are, are exempt, and fall due now and in the weeks after."""
    weeks = due_by_week(found)
    sessions, exempt = sum(one.sessions for one in found), sum(one.exempt for one in found)
    return sessions, exempt, *weeks[:3], sum(weeks[3:-1])


def _bars(names: Sequence[str], numbers: Sequence[int]) -> Sequence[Bar]:
    most = max(*numbers, 1)
    return [
        Bar(name, number, round(100 * number / most, 2))
        for name, number in zip(names, numbers, strict=True)
    ]
