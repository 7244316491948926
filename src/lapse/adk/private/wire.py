"""What ADK's server sends and takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from lapse.adk.private.versions import server_module, server_module_name

if TYPE_CHECKING:
    from google.adk.cli.api_server import RunAgentRequest as RunAgentRequest  # noqa: PLC0414
    from google.adk.events.event import Event
    from google.adk.sessions.session import Session
    from starlette.responses import Response


def public_fields(event: Event) -> dict[str, Any]:
    """Return an event as ADK's server sends it: without internal fields, with secrets redacted."""
    sent = _public_event()(event)
    return redacted(sent.model_dump(exclude_none=True, by_alias=True, mode="json"))


def public_fields_of_session(session: Session) -> dict[str, Any]:
    """Return a session as ADK's server sends it; see `public_fields`."""
    sent = _public_session()(session)
    return redacted(sent.model_dump(exclude_none=True, by_alias=True, mode="json"))


def redacted(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields of a session or an event without the secrets of credentials in them."""
    return dict(_redaction()(fields))


# Older servers send what is there, so the functions in place of these three change nothing.


@cache
def _public_event() -> Callable[[Event], Event]:
    try:
        from google.adk.events._internal_metadata import public_event
    except ImportError:  # before 2.11
        return lambda event: event
    return public_event


@cache
def _public_session() -> Callable[[Session], Session]:
    try:
        from google.adk.events._internal_metadata import public_session
    except ImportError:  # before 2.11
        return lambda session: session
    return public_session


@cache
def _redaction() -> Callable[[Any], Any]:
    try:
        from google.adk.auth.auth_credential import _redact_credential_secrets
    except ImportError:  # before 2.12
        return lambda fields: fields
    return _redact_credential_secrets


def error_in(said: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the object of a frame of `/run_sse` if it is an error, with details; None: an event.

    Since 2.4 ADK's server tells the details itself. Before, it tells no type of the error.
    """
    if "error" not in said or "id" in said:
        return None
    if "error_details" in said:
        return said
    details = {"error_type": "", "error_message": said["error"], "timestamp": time.time()}
    return {**said, "error_details": details}


def answer_sessions_with(respond: Callable[[Session | list[Session]], Response]) -> None:
    """Have ADK's routes make their answers with sessions by this function, in the whole process.

    Nothing happens where ADK's server is not loaded. Before 2.12 FastAPI makes the answers, and
    nobody calls the function.
    """
    if is_server_loaded():
        server_module()._redacted_session_response = respond  # type: ignore[attr-defined]  # noqa: SLF001


def is_server_loaded() -> bool:
    """Return whether something has imported ADK's server."""
    return "google.adk.cli" in sys.modules and server_module_name() in sys.modules


def run_request(fields: Mapping[str, Any]) -> RunAgentRequest:
    """Return the body of a `/run_sse` as ADK's server reads it.

    Raises:
        pydantic.ValidationError: the body is not valid.
        UnreadableBodyError: ADK's validation crashed.
    """
    from pydantic import ValidationError

    from lapse.adk.errors import MODEL_FAULTS, UnreadableBodyError

    try:
        made: RunAgentRequest = server_module().RunAgentRequest.model_validate(fields)
    except ValidationError:
        raise
    except MODEL_FAULTS as error:
        raise UnreadableBodyError("the body must be that of a run") from error
    return made


def live_state(text: str) -> Mapping[str, Any]:
    """Return the change of state in a message to `/run_live`, as ADK's server reads it.

    Empty where there is none, or no message.
    """
    from google.adk.agents.live_request_queue import LiveRequest
    from pydantic import ValidationError

    from lapse.adk.errors import MODEL_FAULTS

    try:
        request = LiveRequest.model_validate_json(text)
    except (ValidationError, *MODEL_FAULTS):
        return {}  # ADK reads no further, either
    # Before 2.6 (and 1.39) a message changes no state.
    return getattr(request, "state_delta", None) or {}
