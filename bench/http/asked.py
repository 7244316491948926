"""The requests that servers are asked."""

from __future__ import annotations

from typing import Any, Final

from bench.services.service_worker import (
    LISTED,
    LISTED_USERS,
    LONG,
    LONG_SESSIONS,
    message,
    spoken,
)

APP: Final = "echo"

Asked = tuple[str, str, Any]
"""A method, a path and a body; None: no body."""


def create(user: str, body: Any = None) -> Asked:
    """Return the request that creates a session of a user."""
    return "POST", f"/apps/{APP}/users/{user}/sessions", body or {}


def get(user: str, session: str) -> Asked:
    """Return the request for a session with its events."""
    return "GET", f"/apps/{APP}/users/{user}/sessions/{session}", None


def list_of(user: str) -> Asked:
    """Return the request for a user's sessions."""
    return "GET", f"/apps/{APP}/users/{user}/sessions", None


def run(user: str, session: str) -> Asked:
    """Return the request for a run, whose answer is a stream."""
    message = {"role": "user", "parts": [{"text": "Is there a table for four on Friday?"}]}
    body = {"appName": APP, "userId": user, "sessionId": session, "newMessage": message}
    return "POST", "/run_sse", body


def seeds() -> list[Asked]:
    """Return the requests for the sessions that are read: long ones, and those of two lists."""
    long = [spoken(turn) for turn in range(LONG)]
    made = [create(f"long-{number}", _with(long)) for number in range(LONG_SESSIONS)]
    for user in range(LISTED_USERS):
        made += [
            create(f"listed-{user}", _with([message()] if number % 2 else []))
            for number in range(LISTED)
        ]
    return made


def _with(events: list[Any]) -> dict[str, Any]:
    # ADK creates no session with events that change state.
    fields = [
        event.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"actions"})
        for event in events
    ]
    return {"events": fields} if fields else {}
