"""Writes `docs/openapi.json`: Lapse's own routes, as its application describes them.

ADK's routes are of ADK's version, and so are the layers in front of them: what they take and answer
is in ADK's documentation. `GET /openapi.json` of a server describes both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

import lapse
from lapse import Lapse, Settings

PAGE = Path(__file__).with_name("openapi.json")

# Only where users are known may they erase themselves: a route that others do not have.
ENVIRONMENT = {
    "LAPSE_STORE_URL": "sqlite:///:memory:",
    "LAPSE_AUTH": "header",
    "LAPSE_AUTH_PROXIES": "127.0.0.1",
    "LAPSE_SELF_ERASURE": "true",
}


def openapi() -> dict[str, Any]:
    """Return the description of every route of Lapse that is no page."""
    app = Lapse(settings=Settings.model_validate(ENVIRONMENT)).app()
    app.openapi()  # loads the operators' routes
    own = [
        context
        for context in iter_route_contexts(app.routes)
        if isinstance(context.original_route, APIRoute)
        and context.endpoint.__module__.startswith("lapse.")
    ]
    return get_openapi(
        title="Lapse",
        version=lapse.__version__,
        description="What Lapse adds to the routes of ADK's server.",
        routes=own,
    )


def main(file: str = str(PAGE)) -> None:
    """Write the description into a file."""
    text = json.dumps(openapi(), indent=2, sort_keys=True, ensure_ascii=False)
    Path(file).write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
