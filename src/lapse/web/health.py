"""Is this process alive, is it ready, and what does it count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Response

from lapse.check.store import HealthStore
from lapse.core.errors import LapseError
from lapse.store.database import Database
from lapse.telemetry.metrics import CONTENT_TYPE, Metrics

_TIMEOUT: Final = timedelta(seconds=2)


def health_routes(
    store: Database, metrics: Metrics, *, sweeper_is_well: Callable[[], bool]
) -> APIRouter:
    """Return `/livez`, `/readyz` and `/metrics`."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Answer as long as the process does."""
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz(response: Response) -> dict[str, str]:
        """Answer 200 when the store can be written and the sweeper works, else 503."""
        faults = {}
        try:
            await asyncio.wait_for(HealthStore(store).ping(), _TIMEOUT.total_seconds())
        except TimeoutError:
            faults["store"] = f"no answer within {_TIMEOUT.total_seconds():.0f} s"
        except LapseError as error:
            faults["store"] = str(error)
        if not sweeper_is_well():
            faults["sweeper"] = "not running; expired sessions are hidden but stay in the store"
        if faults:
            response.status_code = 503
            return {"status": "not ready"} | faults
        return {"status": "ready"}

    @router.get("/metrics")
    async def metrics_page() -> Response:
        """Return the metrics as Prometheus reads them."""
        return Response(await metrics.render(), media_type=CONTENT_TYPE)

    return router
