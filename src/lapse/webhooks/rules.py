"""The webhook's options, what its requests say, and how they are signed.

Requests and signatures are those of https://www.standardwebhooks.com/.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from lapse.core.arguments import check_fields
from lapse.core.clock import iso, iso_or_none
from lapse.core.keys import SessionKey

TIMEOUT: Final = timedelta(seconds=10)
"""How long an answer may take."""

AT_ONCE: Final = 16
"""How many events one process sends at a time."""

LEASE: Final = timedelta(seconds=30)
"""The pause before the second attempt, which no other process makes before; each further pause is
twice as long. It is longer than the time in which AT_ONCE events are sent and settled."""

LONGEST_PAUSE: Final = timedelta(hours=1)

KEPT: Final = timedelta(days=3)
"""An event that was not delivered within this time is given up."""

REMEMBERED: Final = timedelta(days=30)
"""How long it is remembered that an event was given up."""

PREFIX: Final = "whsec_"
"""How a secret begins; its key follows as base64."""

_SHORTEST, _LONGEST = 24, 64
"""Bytes of a key."""


class EventKind(StrEnum):
    """The kinds of a webhook's events: the `type` of its request."""

    EXPIRED = "session.expired"
    RESURRECTED = "session.resurrected"
    ARCHIVED = "session.archived"
    RESTORED = "session.restored"
    PURGED = "session.purged"
    """Of an archived session, by a retention policy."""
    CONFIRMED = "retention.confirmed"
    BRAKE_SET = "brake.set"


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """Where events are sent.

    Attributes:
        url: gets each event as a POST. It may hold a secret, so no log and no page shows it.
        secrets: the keys that sign; while an old one is replaced there are two.
    """

    url: str = field(repr=False)
    secrets: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class Event:
    """An event in the outbox.

    Attributes:
        number: its place in the outbox.
        event: its id, the same at each attempt.
        kind: what happened.
        key: the session; with empty parts if it is about none.
        at: when it happened, by the store's clock.
        created_at: when the session was created.
        happens: the end of its restoration (None: there is none), its new deadline (None: it is
            used), or the end of the brake.
        amount: how often the session was resurrected, or how many sessions the brake holds back.
        reason: the brake's, or the digest of the confirmed policy.
        attempts: how often it was taken to be sent, including this time.
    """

    number: int
    event: str
    kind: EventKind
    key: SessionKey
    at: datetime
    created_at: datetime | None
    happens: datetime | None
    amount: int
    reason: str
    attempts: int

    @property
    def body(self) -> bytes:
        """Return the JSON that is sent: the same bytes at each attempt."""
        told = {"type": str(self.kind), "timestamp": iso(self.at), "data": self._data()}
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()

    def _data(self) -> Mapping[str, Any]:
        if self.kind is EventKind.BRAKE_SET:
            return {
                "reason": self.reason,
                "since": iso(self.at),
                "until": iso_or_none(self.happens),
                "sessions": self.amount,
            }
        if self.kind is EventKind.CONFIRMED:
            return {"policy": self.reason, "confirmedAt": iso(self.at)}
        session = {
            "appName": self.key.app_name,
            "userId": self.key.user_id,
            "sessionId": self.key.session_id,
            "createdAt": iso_or_none(self.created_at),
            "resurrections": self.amount,
        }
        match self.kind:
            case EventKind.EXPIRED:
                more = {"expiredAt": iso(self.at), "restorableUntil": iso_or_none(self.happens)}
            case EventKind.RESURRECTED:
                more = {"resurrectedAt": iso(self.at), "expiresAt": iso_or_none(self.happens)}
            case EventKind.ARCHIVED:
                more = {"archivedAt": iso(self.at), "restorableUntil": iso_or_none(self.happens)}
            case EventKind.RESTORED:
                more = {"restoredAt": iso(self.at)}
            case EventKind.PURGED:
                more = {"purgedAt": iso(self.at)}
        return session | more


def signature(secret: bytes, name: str, moment: str, body: bytes) -> str:
    """Return the signature by a key of a message's id, its time in seconds, and its body."""
    signed = b".".join((name.encode(), moment.encode(), body))
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def headers_of(
    event: Event, body: bytes, secrets: tuple[bytes, ...], now: datetime
) -> Mapping[str, str]:
    """Return the headers of a request at a moment, with a signature of `body` by each secret."""
    moment = str(int(now.timestamp()))
    name = f"msg_{event.event}"
    return {
        "content-type": "application/json",
        "user-agent": "lapse-webhook",
        "webhook-id": name,
        "webhook-timestamp": moment,
        "webhook-signature": " ".join(signature(secret, name, moment, body) for secret in secrets),
    }


def read_secret(text: str) -> bytes | None:
    """Return the key, of 24 to 64 bytes, in a secret `whsec_BASE64`; None: it is no secret."""
    if not text.startswith(PREFIX):
        return None
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        return None
    return key if _SHORTEST <= len(key) <= _LONGEST else None
