"""A request's body, read before the route reads it again."""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Message, Receive


async def read_body(receive: Receive) -> tuple[bytes, Receive]:
    """Read a request's body, and return it with a `receive` that gives it once more."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            message = {"type": "http.request", "body": b"".join(chunks), "more_body": False}
            break
    pending: list[Message] = [message]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return b"".join(chunks), again


def parsed(body: bytes) -> dict[str, Any]:
    """Return a JSON object; empty for anything else, which ADK's own validation answers."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
