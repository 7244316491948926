"""The browser's client, for every page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_HERE: Final = Path(__file__).parent


class Files(StaticFiles):
    """Files that browsers keep but ask for again each time: a new release shows at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, to be asked for again.

        It is read first: it would be open for as long as a reader takes, and a server may have
        no more open files than it has connections.
        """
        response = await super().get_response(path, scope)
        if isinstance(response, FileResponse):
            whole = await asyncio.to_thread(Path(response.path).read_bytes)
            kept = ("content-type", "etag", "last-modified")
            response = Response(whole, headers={name: response.headers[name] for name in kept})
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def add_client(app: FastAPI) -> None:
    """Serve the JavaScript client at `/lapse/client.js`."""
    # In a checkout it is a link to `clients/js`: there is one such file.
    files = Files(directory=_HERE / "static", follow_symlink=True)

    async def client(request: Request) -> Response:
        return await files.get_response("client.js", request.scope)

    app.router.routes.append(Route("/lapse/client.js", client))
