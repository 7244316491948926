"""The operators' pages that change something, each after a form that asks for confirmation."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from lapse.adk.service import LapseSessionService
from lapse.core.errors import NoSuchSessionError
from lapse.dashboard.actions import MOST_COUNTED, WORDS, Action, Actions
from lapse.dashboard.cookies import LONGEST_GIVEN_NAME, Operator
from lapse.dashboard.errors import PageRoute
from lapse.dashboard.login import Login, base_of
from lapse.dashboard.options import OperatorOptions
from lapse.dashboard.pages import Key, address_of
from lapse.dashboard.rendering import SECURITY, Pages
from lapse.store.sessions import Sessions
from lapse.sweep.store import SweepStore
from lapse.sweep.sweeper import SweepReport

_LONGEST_FORM = 16 * 1024


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        HTTPException: 413 if it is larger than any form of these pages.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            most = f"the form must be at most {_LONGEST_FORM} bytes (a fixed limit)"
            raise HTTPException(413, most)
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


Form = Annotated[dict[str, str], Depends(read_form)]


def change_routes(  # noqa: C901 - one function for each route
    service: LapseSessionService,
    options: OperatorOptions,
    login: Login,
    pages: Pages,
    actions: Actions,
) -> APIRouter:
    """Return a router of log-in, log-out and all changes."""
    router = APIRouter(prefix="/lapse", route_class=PageRoute, include_in_schema=False)
    store = service.store
    authorized = Annotated[Operator, Depends(login.operator_of_page)]

    def common(operator: Operator) -> dict[str, Any]:
        return {
            "operator": operator,
            "form_token": login.signatures.form_token(operator.session),
            "store": options.store,
        }

    def form_sender(request: Request, operator: authorized, form: Form) -> Operator:
        login.check_form(request, operator, form)
        return operator

    sender = Annotated[Operator, Depends(form_sender)]
    may_log_in = Depends(login.check_may_log_in)

    def redirect(request: Request, path: str) -> Response:
        return RedirectResponse(f"{base_of(request)}{path}", 303, headers=SECURITY)

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
    async def confirm(request: Request, operator: authorized, action: Action, key: Key) -> Response:
        record = await Sessions(store).lifecycle(key)
        if record is None:
            raise NoSuchSessionError(f"session {key.named} does not exist")
        return pages.page(
            request,
            "confirm.html",
            **common(operator),
            record=record,
            action=action,
            words=WORDS[action],
            address=address_of(key),
        )

    @router.post("/session/{action}")
    async def act(request: Request, operator: sender, action: Action, key: Key) -> Response:
        if await actions.do(action, key, operator) is None:
            return redirect(request, f"/sessions?done={action}")
        return redirect(request, f"/session?{address_of(key)}&done={action}")

    async def sweep_page(
        request: Request, operator: Operator, swept: SweepReport | None
    ) -> Response:
        return pages.page(
            request,
            "sweep.html",
            **common(operator),
            dues=await actions.dues(),
            most=MOST_COUNTED,
            enforced=store.rules.enforced,
            swept=swept,
        )

    @router.get("/sweep")
    async def dry_run(request: Request, operator: authorized) -> Response:
        return await sweep_page(request, operator, None)

    @router.post("/sweep")
    async def sweep(request: Request, operator: sender) -> Response:
        return await sweep_page(request, operator, await actions.sweep(operator))

    @router.get("/brake")
    async def brake(request: Request, operator: authorized) -> Response:
        return pages.page(
            request,
            "brake.html",
            **common(operator),
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


def _own(path: str) -> str:
    """Return `path` if it is one of the operators' pages, else the overview's path."""
    is_ours = path.startswith("/lapse/") and "\\" not in path and path.isprintable()
    return path if is_ours else "/lapse/"


def _is_name(name: str) -> bool:
    return len(name) <= LONGEST_GIVEN_NAME and (not name or name.isprintable())
