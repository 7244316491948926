"""What a process that only sweeps answers: is it alive, is it ready, and what does it count."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lapse.auth.authenticator import may_scrape
from lapse.web.counts import count_store
from lapse.web.health import health_routes

if TYPE_CHECKING:
    from lapse.core.feed import Feed
    from lapse.retention.keeper import RetentionKeeper
    from lapse.store.database import Database
    from lapse.sweep.sweeper import Sweeper
    from lapse.telemetry.metrics import Metrics
    from lapse.webhooks.sender import WebhookSender

_METRICS = "/metrics"


def sweeper_app(
    store: Database,
    feed: Feed,
    metrics: Metrics,
    *,
    sweeper: Sweeper,
    retention: RetentionKeeper | None,
    retention_file: Path | None,
    webhooks: WebhookSender | None,
    metrics_tokens: Collection[SecretStr] | None,
) -> FastAPI:
    """Return an application with `/livez`, `/readyz` and `/metrics`, and no other route.

    `/metrics` is answered to whoever has one of `metrics_tokens`, or to everybody if that is None.
    """
    count_store(
        store,
        feed,
        metrics,
        webhooks=webhooks,
        keeper=retention,
        retention_file=retention_file,
        # Without a keeper used sessions live elsewhere, or no policy is set.
        is_retention_possible=retention is not None,
    )
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.include_router(health_routes(store, metrics, sweeper_is_well=lambda: sweeper.is_alive))
    if metrics_tokens is not None:
        app.add_middleware(_TokenForMetrics, tokens=metrics_tokens)
    return app


class _TokenForMetrics:
    """Answers 401 to whoever asks for the metrics without a token for them."""

    def __init__(self, app: ASGIApp, *, tokens: Collection[SecretStr]) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == _METRICS:
            connection = HTTPConnection(scope)
            if not may_scrape(_METRICS, connection, self._tokens):
                detail = "needs LAPSE_METRICS_TOKEN as its bearer token"
                answer = JSONResponse(
                    {"detail": detail}, 401, {"WWW-Authenticate": 'Bearer realm="lapse"'}
                )
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)
