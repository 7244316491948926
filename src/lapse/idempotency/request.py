"""Reads the header `Idempotency-Key` of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from lapse.core.keys import SessionKey
from lapse.core.request import body_of
from lapse.idempotency.rules import HEADER, KeyedRequest, KeyRules

NAME: Final = HEADER.lower().encode()
"""The header's name, as a request's scope has it."""

_LARGE: Final = 256 * 1024
"""The digest of a larger body is made in a thread."""


def sent_key(scope: Mapping[str, Any]) -> str | None:
    """Return the value of the header; None without it, and no valid key if it is sent twice."""
    sent = [value.decode("latin-1") for name, value in scope["headers"] if name == NAME]
    return " ".join(sent) if sent else None


async def keyed_request(
    scope: Mapping[str, Any], rules: KeyRules, session: SessionKey, route: str
) -> KeyedRequest | None:
    """Return what makes a request repeatable, after its body was read; None without the header.

    `KeyRules.request` describes the session, the route and the error.
    """
    key = sent_key(scope)
    if key is None:
        return None
    body = body_of(scope)
    raw = b"" if body is None else body.raw
    request = partial(rules.request, key, session, route, raw)
    return await asyncio.to_thread(request) if len(raw) > _LARGE else request()
