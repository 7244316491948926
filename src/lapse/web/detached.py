"""ADK's `/run_sse`, detached from its connection where the client asks for it."""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.routing import Match, Route
from starlette.types import Scope

from lapse.lifecycle import SessionKey, check_key
from lapse.runs import Runs
from lapse.web.adk import Opener
from lapse.web.beginning import RUN_HEADER, check_storable, opened, unless_gone
from lapse.web.run_bodies import IfBusy
from lapse.web.streams import EventStream

_DETACH: Final = b"lapse-detach"


class DetachedRoute(Route):
    """ADK's `/run_sse` for requests with the header `Lapse-Detach: true`; no others are met."""

    def __init__(self, runs: Runs, opener: Opener, *, default_app: str | None) -> None:
        async def run_sse(request: Request) -> Response:
            asked = await _asked(request, default_app)
            if_busy = IfBusy(asked.pop("ifBusy"))
            key = check_key(SessionKey(asked["appName"], asked["userId"], asked["sessionId"]))
            check_storable(asked)
            started = await unless_gone(
                request,
                lambda: runs.begin(
                    key, lambda: opened(opener, asked), queue=if_busy is IfBusy.QUEUE
                ),
            )
            if started is None:
                return Response(status_code=499)
            record = started.record
            return EventStream(runs.follow(record), {RUN_HEADER: record.run_id})

        super().__init__("/run_sse", run_sse, methods=["POST"], include_in_schema=False)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match only where the run is to be detached."""
        detach = dict(scope.get("headers") or ()).get(_DETACH, b"")
        if detach.strip().lower() != b"true":
            return Match.NONE, {}
        return super().matches(scope)


async def _asked(request: Request, default_app: str | None) -> dict[str, Any]:
    """Read the body of a `/run_sse`, with what detaching needs.

    Raises:
        RequestValidationError: ADK would not accept it either, or it has no message to store.
    """
    from google.adk.cli.api_server import RunAgentRequest

    body = await request.body()
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict):
            raise RequestValidationError([_fault("body", "must be a JSON object")])
        asked = RunAgentRequest.model_validate(fields)
        if_busy = IfBusy(fields.get("ifBusy") or fields.get("if_busy") or "reject")
    except ValidationError as error:
        raise RequestValidationError(
            [fault | {"loc": ("body", *fault["loc"])} for fault in error.errors()]
        ) from error
    except (ValueError, RecursionError) as error:
        raise RequestValidationError([_fault("body", str(error))]) from error
    app_name = asked.app_name or default_app
    if not app_name:
        raise HTTPException(400, "app_name is required when ADK_DEFAULT_APP_NAME is not set")
    if asked.new_message is None and asked.invocation_id is None:
        raise RequestValidationError([_fault("newMessage", "a detached run needs a message")])
    plain = asked.model_dump(by_alias=True, mode="json", exclude_none=True)
    return plain | {"appName": app_name, "ifBusy": if_busy}


def _fault(field: str, reason: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ("body", field), "msg": reason, "input": None}
