"""The routes at `…/sessions/{session_id}/lifecycle`: read, amend, extend and resurrect."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from lapse.adk.service import LapseSessionService
from lapse.core.clock import utc_now
from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.core.request import decoded
from lapse.limits.routes import DocumentRoute
from lapse.overview.json import record_json


def _key(app_name: str, user_id: str, session_id: str) -> SessionKey:
    return SessionKey(decoded(app_name), decoded(user_id), decoded(session_id))


Key = Annotated[SessionKey, Depends(_key)]


class _CamelModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class LifecycleBody(_CamelModel):
    """A session's record in an answer. Moments are ISO 8601 in UTC."""

    app_name: str
    user_id: str
    session_id: str
    status: Status
    has_messages: bool
    created_at: str
    first_message_at: str | None
    ttl_minutes: float | None
    expires_at: str | None
    expired_at: str | None
    restorable_until: str | None
    resurrections: int
    metadata: Mapping[str, Any]
    archived_at: str | None
    pinned: bool
    on_hold: bool
    server_time: str

    @classmethod
    def of(cls, record: Lifecycle, *, now: datetime | None = None) -> LifecycleBody:
        """Render a record as it reads at `now`, by default the present."""
        return cls.model_validate(record_json(record, now or utc_now()))


class AmendBody(_CamelModel):
    """The changes that a PATCH asks for; at least one of the fields is given."""

    metadata: dict[str, Any] | None = None
    ttl_minutes: Any = Field(default=None, json_schema_extra={"type": "number"})


def pin_routes(service: LapseSessionService) -> APIRouter:
    """Return a router with the routes by which an owner exempts a session from retention."""
    router = APIRouter(
        prefix="/apps/{app_name}/users/{user_id}/sessions/{session_id}/pin", tags=["lifecycle"]
    )

    @router.put("")
    async def pin(key: Key) -> LifecycleBody:
        """Exempt a session from retention; a pinned one stays as it is."""
        return LifecycleBody.of(await service.pin(key))

    @router.delete("")
    async def unpin(key: Key) -> LifecycleBody:
        """Let retention apply to a session again."""
        return LifecycleBody.of(await service.unpin(key))

    return router


def lifecycle_routes(service: LapseSessionService) -> APIRouter:
    """Return a router with the lifecycle routes of one service."""
    router = APIRouter(
        prefix="/apps/{app_name}/users/{user_id}/sessions/{session_id}/lifecycle",
        tags=["lifecycle"],
        route_class=DocumentRoute,
    )

    @router.get("")
    async def read(key: Key) -> LifecycleBody:
        """Return the record of a session, also of an expired one."""
        return LifecycleBody.of(await service.lifecycle(key))

    @router.patch("")
    async def amend(key: Key, body: AmendBody) -> LifecycleBody:
        """Merge metadata by top-level keys, and give a waiting session a new TTL from now."""
        ttl = None
        if body.ttl_minutes is not None:
            ttl = service.policy.requested(body.ttl_minutes, field="ttlMinutes")
        if body.metadata is None and ttl is None:
            raise InvalidValueError("body", "must have metadata, ttlMinutes or both")
        return LifecycleBody.of(await service.amend(key, metadata=body.metadata, ttl=ttl))

    @router.post("/extend")
    async def extend(key: Key) -> LifecycleBody:
        """Give a waiting session a fresh TTL because somebody is typing."""
        return LifecycleBody.of(await service.extend(key))

    @router.post("/resurrect")
    async def resurrect(key: Key) -> LifecycleBody:
        """Resurrect an expired session; a session that lives is left as it is."""
        return LifecycleBody.of(await service.resurrect(key))

    return router
