"""The routes by which users erase what is kept of them in all apps: `…/{user_id}/erasure`."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, ConfigDict

from lapse.adk.remembered import Memory, MemoryService
from lapse.adk.service import LapseSessionService
from lapse.auth.principals import Role, acting, current_principal
from lapse.core.errors import InvalidValueError, StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.core.minutes import spelt
from lapse.core.request import decoded
from lapse.erasure.erasing import Erasure, in_camel_case
from lapse.erasure.services import Artifacts, OtherService
from lapse.limits.routes import DocumentRoute

AT_ONCE: Final = 2
"""Erasures that a process does at a time."""

_LONGEST: Final = timedelta(minutes=1)

_SELF_SERVICE: Final = "self-service"
"""Who erases, for the audit log, where it is the user: the record must not name them."""

_FILES: Final = "the deleted bytes in the files of the database"


class ConfirmBody(BaseModel):
    """The user's id once more: an erasure cannot be undone."""

    model_config = ConfigDict(extra="forbid")

    confirm: str


def erasure_routes(service: LapseSessionService, memory: MemoryService | None) -> APIRouter:
    """Return a router of the routes; authentication decides who may call them.

    `memory` is what remembers users, None if there is none.
    """
    router = APIRouter(tags=["erasure"], route_class=DocumentRoute)
    erasures = Erasures(service, memory)
    path = "/apps/{app_name}/users/{user_id}/erasure"

    def _user(app_name: str, user_id: str) -> SessionKey:
        return SessionKey(decoded(app_name), decoded(user_id), "")

    asked = Annotated[SessionKey, Depends(_user)]

    @router.get(path)
    async def plan(user: asked) -> dict[str, Any]:
        """Count what is kept of the user, in all apps; nothing is changed."""
        async with erasures.one_of(user) as erasure:
            return {"found": in_camel_case(await erasure.plan())}

    @router.post(path)
    async def erase(user: asked, body: ConfirmBody) -> dict[str, Any]:
        """Erase everything that is kept of the user, in all apps, for good."""
        if body.confirm != user.user_id:
            raise InvalidValueError("confirm", "must be the id of the user who is erased")
        by = _actor()
        async with erasures.one_of(user) as erasure:
            receipt = await erasure.run(by)
        document = receipt.document()
        return document | {"remains": [*receipt.remains, _FILES]}

    return router


def _actor() -> str:
    principal = current_principal()
    return _SELF_SERVICE if principal is None or principal.role is Role.USER else principal.name


class Erasures:
    """Makes erasures, AT_ONCE at a time."""

    def __init__(self, service: LapseSessionService, memory: MemoryService | None) -> None:
        self._service = service
        self._memory = memory
        self._going_on = 0

    @asynccontextmanager
    async def one_of(self, user: SessionKey) -> AsyncIterator[Erasure]:
        """Provide the erasure of a user inside the block, which no principal's rights limit.

        Raises:
            HTTPException: 503 if AT_ONCE are going on.
            StoreUnavailableError: the block takes longer than a minute; what is done stays done.
        """
        if self._going_on >= AT_ONCE:
            reason = f"{AT_ONCE} erasures are going on; try again when one has ended"
            raise HTTPException(503, reason, headers={"Retry-After": "10"})
        self._going_on += 1
        try:
            with acting(None):
                async with asyncio.timeout(_LONGEST.total_seconds()):
                    yield self._made(user)
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"not done within {spelt(_LONGEST)}; send the same request again, and it goes on"
            ) from error
        finally:
            self._going_on -= 1

    def _made(self, user: SessionKey) -> Erasure:
        service, sweeper = self._service, self._service.artifacts
        return Erasure(
            service.store,
            user.user_id,
            end=lambda key: service.delete_session(*key),
            artifacts=None if sweeper is None else Artifacts(sweeper.service, sweeper.serves),
            memory=None if self._memory is None else Memory(self._memory),
            elsewhere=None if service.has_stored_events else OtherService(service),
            apps=[user.app_name],
        )
