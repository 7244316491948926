"""The browser's client, for every page."""

from __future__ import annotations

import hashlib
from mimetypes import guess_type
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

_HERE: Final = Path(__file__).parent


class Files:
    """The files of a folder, read once and answered from memory.

    An answer needs no thread and no open file, however many ask and however slowly they read.
    Browsers keep a file but ask each time whether it is still the same, so a new release shows at
    once.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {file.name: _File(file) for file in folder.iterdir() if file.is_file()}

    def response(self, name: str, request: Request) -> Response:
        """Return a file, 304 if the browser has it already, or 404."""
        file = self._files.get(name)
        if file is None:
            return PlainTextResponse("Not Found", 404)
        if file.headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=file.headers)
        return Response(file.content, headers=file.headers, media_type=file.media_type)


class _File:
    __slots__ = ("content", "headers", "media_type")

    def __init__(self, file: Path) -> None:
        self.content = file.read_bytes()
        self.media_type = guess_type(file)[0]
        tag = hashlib.sha256(self.content).hexdigest()[:32]
        self.headers = {
            "ETag": f'"{tag}"',
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }


def add_client(app: FastAPI) -> None:
    """Serve the JavaScript client at `/lapse/client.js`."""
    # In a checkout it is a link to `clients/js`: there is one such file.
    files = Files(_HERE / "static")

    async def client(request: Request) -> Response:
        return files.response("client.js", request)

    app.router.routes.append(Route("/lapse/client.js", client))
