"""The operators' API of retention: policy, confirmation and holds, as JSON."""

# No `from __future__ import annotations`: FastAPI cannot resolve them in nested functions.

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from lapse.core.clock import iso
from lapse.core.keys import SessionKey
from lapse.dashboard.cookies import Operator
from lapse.dashboard.login import Login
from lapse.dashboard.retention import Preview, Retention
from lapse.retention.json import hold_json, preview_json, state_json

Document = dict[str, Any]


def scope_key(user: str, app: str = "", id: str = "") -> SessionKey:  # noqa: A002 - as in `Key`
    """Return the key of a hold in an address's query; empty parts are all apps or sessions."""
    return SessionKey(app, user, id)


Scope = Annotated[SessionKey, Depends(scope_key)]


def retention_routes(login: Login, retention: Retention) -> APIRouter:
    """Return a router below `/lapse/api/`, which answers 404 to everybody but operators."""
    router = APIRouter(prefix="/lapse/api", tags=["operators"])
    authorized = Annotated[Operator, Depends(login.operator_of_api)]

    @router.get("/retention")
    async def standing(operator: authorized) -> Document:  # noqa: ARG001 - checks access
        """Return the policy, whether it is in force, and what it would take and when.

        `preview` is null while it is counted, and without a policy.
        """
        state = await retention.state()
        return state_json(state) | {"preview": _preview(await retention.preview(state))}

    @router.post("/retention/confirm")
    async def confirm(operator: authorized, digest: str) -> Document:
        """Confirm the policy of this digest; 409 if the file says something else by now."""
        done = await retention.confirm(digest, operator)
        return state_json(await retention.state()) | {"changed": done}

    @router.get("/holds")
    async def holds(
        operator: authorized,  # noqa: ARG001 - checks access
        user: str | None = None,
    ) -> Document:
        """Return what is on hold, of all users or of one, the oldest first."""
        return {"holds": [hold_json(hold) for hold in await retention.holds(user)]}

    @router.post("/holds")
    async def hold(operator: authorized, key: Scope, reason: str) -> Document:
        """Put a session on hold, or without `id` a user with all sessions to come."""
        return {"changed": await retention.hold(key, reason, operator)}

    @router.post("/holds/release")
    async def release(operator: authorized, key: Scope) -> Document:
        """Release what was put on hold by exactly this key."""
        return {"changed": await retention.release(key, operator)}

    return router


def _preview(preview: Preview | None) -> Document | None:
    if preview is None:
        return None
    return {"countedAt": iso(preview.at), "apps": preview_json(preview.found)}
