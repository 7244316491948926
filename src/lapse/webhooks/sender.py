"""Sending the events of the outbox to the webhook."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final

import httpx

from lapse.core.background import Background
from lapse.core.clock import utc_now
from lapse.core.errors import LapseError
from lapse.core.unlogged import unlogged
from lapse.store.database import Database
from lapse.webhooks.rules import AT_ONCE, TIMEOUT, Event, EventKind, WebhookOptions, headers_of
from lapse.webhooks.store import WebhookStore

_PAUSE: Final = timedelta(seconds=1)
_ANNOUNCED_EVERY: Final = timedelta(minutes=5)
_STEP: Final = timedelta(minutes=1)
_KEPT_ALIVE: Final = timedelta(seconds=30)
"""How long a connection waits for the next event."""

_MOST_READ: Final = 16 * 1024
_READ_WITHIN: Final = timedelta(seconds=1)
"""The body of an answer says nothing to Lapse: after so many bytes, or so long, it is not read."""

_log = logging.getLogger(__name__)


class WebhookFailedError(LapseError):
    """The webhook took none of the events that were sent."""


class WebhookSender:
    """Sends the events of a store's outbox, each at least once, and counts them.

    An answer of 2xx within ten seconds takes an event; a redirect is not followed, and is a failure
    like any other answer. If none of several events is taken, the pauses grow to a minute.

    Attributes:
        sent: how many events of each kind this process has delivered.
        failed: how many attempts of this process failed.
        on_counts: what is called after each of these counts; none may fail.
    """

    def __init__(self, database: Database, options: WebhookOptions) -> None:
        self.sent = Counter[EventKind]()
        self.failed = 0
        self.on_counts: list[Callable[[], None]] = []
        self._store = WebhookStore(database)
        self.options = options
        self._client: httpx.AsyncClient | None = None
        self._announced_at = -math.inf

    def running(self) -> Background:
        """Return the work that sends events until it is stopped."""
        return Background("the webhook", self.step, timeout=_STEP, within=self._connected)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """Have connections that are kept alive between the steps."""
        tls = await asyncio.to_thread(httpx.create_ssl_context)
        limits = httpx.Limits(
            max_keepalive_connections=AT_ONCE, keepalive_expiry=_KEPT_ALIVE.total_seconds()
        )
        async with httpx.AsyncClient(
            verify=tls, timeout=TIMEOUT.total_seconds(), limits=limits
        ) as client:
            self._client, self._announced_at = client, -math.inf
            yield

    async def step(self) -> timedelta:
        """Send a few events, and return how long to wait for the next.

        Raises:
            StoreUnavailableError: the store does not answer.
            WebhookFailedError: the webhook took none of them.
        """
        if time.monotonic() - self._announced_at >= _ANNOUNCED_EVERY.total_seconds():
            await self._store.announce_webhook()
            self._announced_at = time.monotonic()
        taken = await self._store.take_webhooks(AT_ONCE)
        if not taken:
            return _PAUSE
        faults = await asyncio.gather(*(self._fault(event) for event in taken))
        delivered = [event for event, fault in zip(taken, faults, strict=True) if fault is None]
        self.failed += len(taken) - len(delivered)
        for hear in self.on_counts:
            hear()
        if not delivered:
            raise WebhookFailedError(
                f"the webhook took none of {len(taken)} events; look at what LAPSE_WEBHOOK_URL "
                f"answers: {faults[0]}"
            )
        await self._store.settle_webhooks([event.number for event in delivered])
        self.sent.update(event.kind for event in delivered)
        for hear in self.on_counts:
            hear()
        return timedelta(0) if len(taken) == AT_ONCE else _PAUSE

    async def _fault(self, event: Event) -> str | None:
        """Send an event; return why it was not taken, without its content; None: it was taken."""
        assert self._client is not None
        body = event.body
        headers = dict(headers_of(event, body, self.options.secrets, utc_now()))
        try:
            request = self._client.build_request(
                "POST", self.options.url, content=body, headers=headers
            )
            with unlogged():
                async with asyncio.timeout(TIMEOUT.total_seconds()):
                    answer = await self._client.send(request, stream=True)
                try:
                    await _read(answer)
                finally:
                    await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            return type(error).__name__  # its text may hold the URL
        return None if answer.is_success else f"it answers {answer.status_code}"


async def _read(answer: httpx.Response) -> None:
    """Read what is answered, if it is short, because its connection is kept only then."""
    size = 0
    with suppress(httpx.HTTPError, TimeoutError, OSError):
        async with asyncio.timeout(_READ_WITHIN.total_seconds()):
            async for chunk in answer.aiter_raw():
                size += len(chunk)
                if size > _MOST_READ:
                    return
