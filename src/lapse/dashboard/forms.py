"""The operators' pages that change something, each after a form that asks for confirmation."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated
from urllib.parse import parse_qs, parse_qsl, urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from lapse.adk.service import LapseSessionService
from lapse.core.errors import InvalidValueError, no_such_session
from lapse.core.lifecycle import Status
from lapse.dashboard.actions import MOST_COUNTED, WORDS, Action, Actions
from lapse.dashboard.bulk import MOST_AT_ONCE, do_all, keys_of, plan_of, plan_of_query
from lapse.dashboard.cookies import LONGEST_GIVEN_NAME, Operator
from lapse.dashboard.errors import PageRoute
from lapse.dashboard.login import FORM_FIELD, Login, base_of
from lapse.dashboard.pages import Key, address_of
from lapse.dashboard.rendering import SECURITY, Pages
from lapse.overview.store import Query
from lapse.store.sessions import Sessions
from lapse.sweep.store import SweepStore
from lapse.sweep.sweeper import SweepReport

_LONGEST_FORM = 16 * 1024
_LONGEST_LIST = 1024 * 1024


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        HTTPException: 413 if it is larger than any form of these pages.
    """
    return dict(parse_qsl(await _read(request, _LONGEST_FORM), keep_blank_values=True))


async def read_fields(request: Request) -> dict[str, list[str]]:
    """Return the fields of a list's form, each with all its values.

    Raises:
        HTTPException: 413 if it is larger than a list of MOST_AT_ONCE sessions can be.
    """
    return parse_qs(await _read(request, _LONGEST_LIST), keep_blank_values=True)


async def _read(request: Request, most: int) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, f"the form must be at most {most} bytes (a fixed limit)")
    return body.decode("utf-8", "replace")


Form = Annotated[dict[str, str], Depends(read_form)]
Fields = Annotated[dict[str, list[str]], Depends(read_fields)]


def form_sender(login: Login) -> Callable[..., Operator]:
    """Return a dependency: the operator who sends a form, after a check of where it comes from."""
    authorized = Annotated[Operator, Depends(login.operator_of_page)]

    def checked(request: Request, operator: authorized, form: Form) -> Operator:
        login.check_form(request, operator, form)
        return operator

    return checked


def redirect(request: Request, path: str) -> Response:
    """Return the answer that leads a browser to another of the operators' pages."""
    return RedirectResponse(f"{base_of(request)}{path}", 303, headers=SECURITY)


def change_routes(  # noqa: C901, PLR0915 - one function for each route
    service: LapseSessionService,
    login: Login,
    pages: Pages,
    actions: Actions,
) -> APIRouter:
    """Return a router of log-in, log-out and all changes."""
    router = APIRouter(prefix="/lapse", route_class=PageRoute, include_in_schema=False)
    store = service.store
    authorized = Annotated[Operator, Depends(login.operator_of_page)]

    def list_form_sender(request: Request, operator: authorized, fields: Fields) -> Operator:
        login.check_form(request, operator, {FORM_FIELD: _one(fields, FORM_FIELD)})
        return operator

    sender = Annotated[Operator, Depends(form_sender(login))]
    list_sender = Annotated[Operator, Depends(list_form_sender)]
    may_log_in = Depends(login.check_may_log_in)

    @router.get("/login", dependencies=[may_log_in])
    async def login_page(request: Request, then: str = "") -> Response:
        return pages.page(request, "login.html", then=_own(then), refused="")

    @router.post("/login", dependencies=[may_log_in])
    async def log_in(request: Request, form: Form) -> Response:
        login.check_origin(request)
        then = _own(form.get("then", ""))
        given_name = form.get("name", "").strip()
        refused = ""
        if not _is_name(given_name):
            refused = f"A name has at most {LONGEST_GIVEN_NAME} printable characters."
        elif not login.try_token(form.get("token", "").strip()):
            refused = "That is not the token."
        if refused:
            return pages.page(request, "login.html", status=403, then=then, refused=refused)
        answer = redirect(request, then.removeprefix("/lapse") or "/")
        login.set_cookie(request, answer, given_name)
        return answer

    @router.post("/logout")
    async def log_out(request: Request, operator: sender) -> Response:  # noqa: ARG001 - checks access
        answer = redirect(request, "/login")
        login.delete_cookie(request, answer)
        return answer

    @router.get("/session/{action}")
    async def confirm(
        request: Request,
        operator: authorized,  # noqa: ARG001 - checks access
        action: Action,
        key: Key,
    ) -> Response:
        record = await Sessions(store).lifecycle(key)
        if record is None:
            raise no_such_session(key.named)
        return pages.page(
            request,
            "confirm.html",
            record=record,
            action=action,
            words=WORDS[action],
            address=address_of(key),
        )

    @router.post("/session/{action}")
    async def act(
        request: Request, operator: sender, form: Form, action: Action, key: Key
    ) -> Response:
        found = await actions.do(action, key, operator)
        if form.get("back"):
            return redirect(request, _done_at(_own(form["back"]), str(action)))
        if found is None:
            return redirect(request, f"/sessions?done={action}")
        return redirect(request, f"/session?{address_of(key)}&done={action}")

    @router.post("/bulk")
    async def act_on_many(request: Request, operator: list_sender, fields: Fields) -> Response:
        try:
            action = Action(_one(fields, "action"))
        except ValueError as error:
            raise InvalidValueError("action", "must be one of the acts") from error
        back = _own(_one(fields, "back"))
        keys = keys_of(fields.get("key", ()))
        if "sure" in fields:
            done, left = await do_all(actions, action, keys, operator)
            return redirect(request, _done_at(back, f"{action} {done} {left}"))
        if "matching" in fields:
            plan = await plan_of_query(store, action, _query_of(fields))
        else:
            plan = await plan_of(store, action, keys)
        return pages.page(
            request,
            "bulk.html",
            action=action,
            words=WORDS[action],
            plan=plan,
            back=back,
            address=address_of,
            most=MOST_AT_ONCE,
        )

    async def sweep_page(request: Request, swept: SweepReport | None) -> Response:
        return pages.page(
            request,
            "sweep.html",
            dues=await actions.dues(),
            most=MOST_COUNTED,
            enforced=store.rules.enforced,
            swept=swept,
        )

    @router.get("/sweep")
    async def dry_run(request: Request, operator: authorized) -> Response:  # noqa: ARG001 - checks access
        return await sweep_page(request, None)

    @router.post("/sweep")
    async def sweep(request: Request, operator: sender) -> Response:
        return await sweep_page(request, await actions.sweep(operator))

    @router.get("/brake")
    async def brake(request: Request, operator: authorized) -> Response:  # noqa: ARG001 - checks access
        return pages.page(
            request,
            "brake.html",
            dues=await actions.dues(),
            most=MOST_COUNTED,
        )

    @router.post("/brake")
    async def release(request: Request, operator: sender, form: Form) -> Response:
        found = await SweepStore(store).brake()
        if found is not None and found.since.isoformat() == form.get("since"):
            await actions.release(found, operator)
        return redirect(request, "/")

    return router


def _done_at(path: str, done: str) -> str:
    """Return a page's path below `/lapse`, with what was done in its query."""
    place, _, asked = path.removeprefix("/lapse").partition("?")
    kept = [(name, value) for name, value in parse_qsl(asked) if name != "done"]
    return f"{place}?{urlencode([*kept, ('done', done)])}"


def _one(fields: Mapping[str, Sequence[str]], name: str) -> str:
    return fields.get(name, [""])[0]


def _query_of(fields: Mapping[str, Sequence[str]]) -> Query:
    """Return the filters that a list's form holds.

    Raises:
        InvalidValueError: there is none, or the status is not one.
    """
    names = ("app", "user", "prefix")
    app, user, prefix = (_one(fields, name) or None for name in names)
    status = _one(fields, "status")
    if status not in {"", *Status}:
        raise InvalidValueError("status", f"must be a status, not {status!r:.40}")
    if not (status or app or user or prefix):
        raise InvalidValueError("matching", "needs a filter: a status, an app, a user or an id")
    return Query(Status(status) if status else None, app, user, prefix)


def _own(path: str) -> str:
    """Return `path` if it is one of the operators' pages, else the overview's path."""
    is_ours = path.startswith("/lapse/") and "\\" not in path and path.isprintable()
    return path if is_ours else "/lapse/"


def _is_name(name: str) -> bool:
    return len(name) <= LONGEST_GIVEN_NAME and (not name or name.isprintable())
