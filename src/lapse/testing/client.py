"""A client of the routes of ADK and Lapse, for one user of one server."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import httpx

DEMO_APP: Final = "concierge"
TTL: Final = timedelta(seconds=2)
"""The TTL of the sessions that a scenario creates."""

PATIENCE: Final = timedelta(seconds=15)
"""What must happen has to happen within this time."""


class Broken(Exception):  # noqa: N818 - it is a verdict, not an error
    """A scenario does not hold; the message says why."""


def check(holds: object, otherwise: str) -> None:
    """Raise Broken with the message `otherwise` unless `holds` is true."""
    if not holds:
        raise Broken(otherwise)


@dataclass(frozen=True, slots=True)
class CreatedSession:
    """The app and the id of a session."""

    app: str
    id: str


class Client:
    """Sends requests to one server as one user, by default a new one.

    Each method raises Broken if the server answers with an error that is not expected.

    Args:
        url: the base URL of the server.
        user: the user id; "": a new one.
    """

    def __init__(self, url: str, *, user: str = "") -> None:
        self.user = user or f"verify-{uuid.uuid4().hex[:12]}"
        self._http = httpx.AsyncClient(
            base_url=url, timeout=30, limits=httpx.Limits(max_connections=32)
        )

    async def __aenter__(self) -> Self:
        """Return the client; it connects with its first request."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _path(self, session: CreatedSession) -> str:
        return f"/apps/{session.app}/users/{self.user}/sessions/{session.id}"

    async def create(
        self, app: str = DEMO_APP, *, ttl: timedelta | None = TTL, state: Any = None
    ) -> CreatedSession:
        """Create a session with ADK's request; with `ttl` None it has the server's TTL."""
        body: dict[str, Any] = {"state": state or {}}
        if ttl is not None:
            body["options"] = {"ttl_minutes": ttl / timedelta(minutes=1)}
        response = await self._http.post(f"/apps/{app}/users/{self.user}/sessions", json=body)
        check(response.is_success, f"create answered {response.status_code}: {response.text:.200}")
        return CreatedSession(app, response.json()["id"])

    async def say(self, session: CreatedSession, text: str) -> None:
        """Send a message, and wait until the agent has answered."""
        body = {
            "appName": session.app,
            "userId": self.user,
            "sessionId": session.id,
            "newMessage": {"role": "user", "parts": [{"text": text}]},
        }
        response = await self._http.post("/run", json=body)
        check(response.is_success, f"a message got {response.status_code}: {response.text:.200}")
        answers = [event for event in response.json() if event.get("content")]
        check(answers, "a message got no answer")

    async def read(self, session: CreatedSession) -> dict[str, Any] | None:
        """Return the session as ADK's route answers it; None for a 404."""
        return await self._get(self._path(session))

    async def record(self, session: CreatedSession) -> dict[str, Any] | None:
        """Return the record of `GET …/lifecycle`; None for a 404."""
        return await self._get(f"{self._path(session)}/lifecycle")

    async def _get(self, path: str) -> dict[str, Any] | None:
        response = await self._http.get(path)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        check(response.is_success, f"GET answered {response.status_code}: {response.text:.200}")
        found: dict[str, Any] = response.json()
        return found

    async def listed(self, app: str = DEMO_APP) -> set[str]:
        """Return the ids of the user's sessions, as ADK's route lists them."""
        response = await self._http.get(f"/apps/{app}/users/{self.user}/sessions")
        return {session["id"] for session in response.json()}

    async def delete(self, session: CreatedSession) -> None:
        """Delete a session with ADK's request, whatever it answers."""
        await self._http.delete(self._path(session))

    async def serves(self, app: str) -> bool:
        """Return whether the server serves an app."""
        response = await self._http.get("/list-apps")
        return response.is_success and app in response.json()

    async def count(self, metric: str, app: str) -> float:
        """Return the value of a counter of `/metrics` for one app; 0 without a sample."""
        text = (await self._http.get("/metrics")).text
        found = re.search(rf'^{metric}{{app="{re.escape(app)}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0

    async def wait_for_status(self, session: CreatedSession, status: str) -> Mapping[str, Any]:
        """Return the record once it has a status; raise Broken if it has not within PATIENCE."""
        found: Mapping[str, Any] | None = None
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while True:
                    found = await self.record(session)
                    if found is not None and found["status"] == status:
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            seen = "gone" if found is None else found["status"]
            raise Broken(f"still {seen}, not {status}") from None


def moment(text: str) -> datetime:
    """Return a time of the server's JSON as an aware datetime in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


async def sleep_until(when: datetime) -> None:
    """Sleep until a time of this host's clock; return at once if it has passed."""
    await asyncio.sleep(max(0.0, (when - datetime.now(UTC)).total_seconds()))
