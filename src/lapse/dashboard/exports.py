"""The operators' export of a user: a ZIP archive that is sent while it is made."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from importlib.metadata import version
from typing import Annotated, Final, cast

from fastapi import APIRouter, Depends, HTTPException
from fastapi import Query as Parameter
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lapse.adk.service import LapseSessionService
from lapse.audit.store import AuditLog
from lapse.core.artifacts import CopyingService
from lapse.core.clock import utc_now
from lapse.core.keys import LONGEST_ID, SessionKey, check_key, user_digest
from lapse.core.minutes import spelt
from lapse.dashboard.cookies import Operator
from lapse.dashboard.login import Login
from lapse.export.artifacts import Artifacts
from lapse.export.exporting import Export
from lapse.export.sinks import Archive

AT_ONCE: Final = 2
"""Exports that a process makes at a time: each holds a connection, and a snapshot of the store."""

_LONGEST: Final = timedelta(minutes=10)

_log = logging.getLogger(__name__)

_UserName = Annotated[str, Parameter(min_length=1, max_length=LONGEST_ID)]
_AppName = Annotated[str | None, Parameter(min_length=1, max_length=LONGEST_ID)]


def export_routes(service: LapseSessionService, login: Login) -> APIRouter:
    """Return a router of `/lapse/api/export`, which answers 404 to everybody but operators."""
    router = APIRouter(prefix="/lapse/api", tags=["operators"])
    exports = Exports(service)
    authorized = Annotated[Operator, Depends(login.operator_of_api)]

    @router.get("/export", response_class=StreamingResponse)
    async def export(
        operator: authorized, user: _UserName, app: _AppName = None
    ) -> StreamingResponse:
        """Send everything that is kept of a user, as `lapse export` writes it, in a ZIP archive."""
        check_key(SessionKey("-" if app is None else app, user, "-"))
        return await exports.answer(operator, user, app)

    return router


class Exports:
    """Makes exports, AT_ONCE at a time."""

    def __init__(self, service: LapseSessionService) -> None:
        self._service = service
        self._made = 0

    async def answer(self, operator: Operator, user: str, app: str | None) -> StreamingResponse:
        """Return the answer that sends a user's export; the act is recorded before it begins.

        Raises:
            HTTPException: 503 if AT_ONCE exports are being made.
            NotWithThisServiceError: another session service has sessions of the user.
        """
        if self._made >= AT_ONCE:
            reason = f"{AT_ONCE} exports are being made; try again when one has ended"
            raise HTTPException(503, reason, headers={"Retry-After": "30"})
        self._made += 1
        chunks = self._chunks(user, app)
        try:
            act = {"user": user_digest(user)}
            await AuditLog(self._service.store).record_act(operator.name, "exported", act)
            first = await anext(chunks)
        except BaseException:
            await self.end(chunks)
            raise
        return _Sending(self, first, chunks)

    async def end(self, chunks: AsyncGenerator[bytes, None]) -> None:
        """Close an export, and let the next one begin."""
        try:
            await chunks.aclose()
        finally:
            self._made -= 1

    async def _chunks(self, user: str, app: str | None) -> AsyncGenerator[bytes, None]:
        sweeper = self._service.artifacts
        kept = None
        if sweeper is not None:
            kept = Artifacts(cast("CopyingService", sweeper.service), sweeper.serves)
        archive = Archive()
        async with self._service.store.snapshot() as snapshot:
            export = Export(
                snapshot, user, app_name=app, artifacts=kept, at=utc_now(), lapse=version("lapse")
            )
            async with aclosing(export.write(archive)) as pages:
                async for _ in pages:
                    if chunk := archive.take():
                        yield chunk
        await asyncio.to_thread(archive.close)
        yield archive.take()


async def _after(first: bytes, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for chunk in chunks:
        yield chunk


class _Sending(StreamingResponse):
    """An answer that is sent for no longer than _LONGEST."""

    def __init__(self, exports: Exports, first: bytes, chunks: AsyncGenerator[bytes, None]) -> None:
        headers = {
            "Content-Disposition": 'attachment; filename="lapse-export.zip"',
            "Cache-Control": "no-store",
        }
        super().__init__(_after(first, chunks), media_type="application/zip", headers=headers)
        self._exports = exports
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(_LONGEST.total_seconds()):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            _log.warning("an export was not read within %s, and was aborted", spelt(_LONGEST))
            raise
        finally:
            await self._exports.end(self._chunks)
