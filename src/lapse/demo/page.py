"""The demo's chat page."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from lapse.auth.principals import current_principal
from lapse.web.client import Files

_HERE: Final = Path(__file__).parent
_USER_COOKIE: Final = "lapse_demo_user"
_USER: Final = re.compile(r"guest-[0-9a-f]{32}")
_USER_KEPT: Final = timedelta(days=365)

_SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_chat_page(app: FastAPI, app_name: str) -> None:
    """Serve a page at `/` to chat with the agent of `app_name`.

    The user is the authenticated principal. Without authentication the user is a guest with a
    random name in a cookie, so that other browsers do not see the guest's sessions.
    """
    template = Template((_HERE / "templates" / "chat.html").read_text("utf-8"))

    async def page(request: Request) -> Response:
        principal = current_principal()
        user = principal.name if principal else request.cookies.get(_USER_COOKIE, "")
        if principal is None and not _USER.fullmatch(user):
            user = f"guest-{uuid.uuid4().hex}"
        filled = template.substitute(app=escape(app_name), user=escape(user))
        headers = _SECURITY | {"Cache-Control": "no-store"}
        response = HTMLResponse(filled, headers=headers)
        if principal is not None:
            return response
        response.set_cookie(
            _USER_COOKIE,
            user,
            max_age=int(_USER_KEPT.total_seconds()),
            httponly=True,
            samesite="lax",
        )
        return response

    files = Files(_HERE / "static")

    async def static(request: Request) -> Response:
        return files.response(request.path_params["name"], request)

    # Before ADK's route of `/`, which redirects to its developer UI, and before the entrance of the
    # operators' pages, which loads these for any path below `/lapse/`.
    app.router.routes[:0] = [Route("/", page), Route("/lapse/demo/{name}", static)]
