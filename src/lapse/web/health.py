"""Is this process alive, is it ready, and what does it count."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response

from lapse.check.store import Probe
from lapse.store.database import Database
from lapse.telemetry.metrics import CONTENT_TYPE, Metrics


def health_routes(
    store: Database, metrics: Metrics, *, sweeper_is_well: Callable[[], bool]
) -> APIRouter:
    """Return `/livez`, `/readyz` and `/metrics`."""
    router = APIRouter(tags=["health"])
    probe = Probe(store)

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Answer as long as the process does."""
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz(response: Response) -> dict[str, str]:
        """Answer 200 when the store can be written and the sweeper works, else 503."""
        faults = {}
        fault = await probe.fault()
        if fault is not None:
            faults["store"] = fault
        if not sweeper_is_well():
            faults["sweeper"] = "does not sweep; expired sessions are hidden but stay in the store"
        if faults:
            response.status_code = 503
            return {"status": "not ready"} | faults
        return {"status": "ready"}

    @router.get("/metrics")
    async def metrics_page() -> Response:
        """Return the metrics as Prometheus reads them."""
        return Response(await metrics.render(), media_type=CONTENT_TYPE)

    return router
