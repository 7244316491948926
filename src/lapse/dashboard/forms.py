"""The operators' pages that change something: each asks first, in a form of its own."""

# No `from __future__ import annotations`: FastAPI reads those of functions within functions.

from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from lapse.adk.service import LapseSessionService
from lapse.core.errors import NoSuchSessionError
from lapse.dashboard.actions import MOST_COUNTED, WORDS, Action, Doing, HandSwept
from lapse.dashboard.cookies import LONGEST_GIVEN_NAME, Operator
from lapse.dashboard.errors import PageRoute
from lapse.dashboard.login import Admission, base_of
from lapse.dashboard.options import OperatorOptions
from lapse.dashboard.pages import Key, address_of
from lapse.dashboard.rendering import SECURITY, Pages
from lapse.store.sessions import Sessions
from lapse.sweep.store import SweepStore

_LONGEST_FORM = 16 * 1024


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        HTTPException: 413; it is longer than any of ours.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            raise HTTPException(413)
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


Form = Annotated[dict[str, str], Depends(read_form)]


def change_routes(  # noqa: C901 - one function for each route
    service: LapseSessionService,
    options: OperatorOptions,
    admission: Admission,
    pages: Pages,
    doing: Doing,
) -> APIRouter:
    """Return the routes of log-in, log-out and of what operators do."""
    router = APIRouter(prefix="/lapse", route_class=PageRoute, include_in_schema=False)
    store = service.store
    admitted = Annotated[Operator, Depends(admission.of_page)]

    def common(operator: Operator) -> dict[str, Any]:
        return {
            "operator": operator,
            "form_token": admission.signatures.form_token(operator.session),
            "store": options.store,
        }

    def admitted_form(request: Request, operator: admitted, form: Form) -> Operator:
        admission.check_form(request, operator, form)
        return operator

    sent = Annotated[Operator, Depends(admitted_form)]
    log_in_open = Depends(admission.may_log_in)

    def away(request: Request, path: str) -> Response:
        return RedirectResponse(f"{base_of(request)}{path}", 303, headers=SECURITY)

    @router.get("/login", dependencies=[log_in_open])
    async def login(request: Request, then: str = "") -> Response:
        return pages.page(request, "login.html", then=_own(then), refused="")

    @router.post("/login", dependencies=[log_in_open])
    async def log_in(request: Request, form: Form) -> Response:
        admission.check_origin(request)
        then = _own(form.get("then", ""))
        given_name = form.get("name", "").strip()
        refused = ""
        if not _is_name(given_name):
            refused = f"A name has at most {LONGEST_GIVEN_NAME} printable characters."
        elif not admission.try_token(request, form.get("token", "").strip()):
            refused = "That is not the token."
        if refused:
            return pages.page(request, "login.html", status=403, then=then, refused=refused)
        answer = away(request, then.removeprefix("/lapse") or "/")
        admission.set_cookie(request, answer, given_name)
        return answer

    @router.post("/logout")
    async def log_out(request: Request, operator: sent) -> Response:  # noqa: ARG001 - let in
        answer = away(request, "/login")
        admission.delete_cookie(request, answer)
        return answer

    @router.get("/session/{action}")
    async def confirm(request: Request, operator: admitted, action: Action, key: Key) -> Response:
        record = await Sessions(store).lifecycle(key)
        if record is None:
            raise NoSuchSessionError(f"session {key.short}… does not exist")
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
    async def act(request: Request, operator: sent, action: Action, key: Key) -> Response:
        if await doing.do(action, key, operator) is None:
            return away(request, f"/sessions?done={action}")
        return away(request, f"/session?{address_of(key)}&done={action}")

    async def sweep_page(request: Request, operator: Operator, swept: HandSwept | None) -> Response:
        return pages.page(
            request,
            "sweep.html",
            **common(operator),
            dues=await doing.dues(),
            most=MOST_COUNTED,
            enforced=store.rules.enforced,
            swept=swept,
        )

    @router.get("/sweep")
    async def dry_run(request: Request, operator: admitted) -> Response:
        return await sweep_page(request, operator, None)

    @router.post("/sweep")
    async def sweep(request: Request, operator: sent) -> Response:
        return await sweep_page(request, operator, await doing.sweep(operator))

    @router.get("/brake")
    async def brake(request: Request, operator: admitted) -> Response:
        return pages.page(
            request,
            "brake.html",
            **common(operator),
            dues=await doing.dues(),
            most=MOST_COUNTED,
        )

    @router.post("/brake")
    async def release(request: Request, operator: sent, form: Form) -> Response:
        found = await SweepStore(store).brake()
        if found is not None and found.since.isoformat() == form.get("since"):
            await doing.release(found, operator)
        return away(request, "/")

    return router


def _own(path: str) -> str:
    """Return a path that is among ours; another one leads home."""
    is_ours = path.startswith("/lapse/") and "\\" not in path and path.isprintable()
    return path if is_ours else "/lapse/"


def _is_name(name: str) -> bool:
    return len(name) <= LONGEST_GIVEN_NAME and (not name or name.isprintable())
