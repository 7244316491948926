"""The browser's client, for every page, and the demo's own page."""

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
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from lapse.auth.principals import current_principal

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


class _Static(StaticFiles):
    """Files that browsers keep but ask for again each time: a new release shows at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def add_client(app: FastAPI) -> None:
    """Serve the JavaScript client at `/lapse/client.js`."""
    # In a checkout it is a link to `clients/js`: there is one such file.
    files = _Static(directory=_HERE / "static", follow_symlink=True)

    async def client(request: Request) -> Response:
        return await files.get_response("client.js", request.scope)

    app.router.routes.append(Route("/lapse/client.js", client))


def add_chat_page(app: FastAPI, app_name: str) -> None:
    """Serve a page at `/` to chat with one of the agents.

    Its user is who asks; where nobody is authenticated, a guest whom a cookie names: who shares
    no cookie shares no sessions.
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

    # Before ADK's own, which leads from here to its developer UI.
    app.router.routes.insert(0, Route("/", page))
    app.router.routes.append(Mount("/lapse/demo", _Static(directory=_HERE / "static")))
