"""Runs `adk`, whose server freezes what it has loaded once it listens, as `lapse serve` does.

Without that ADK's server would be stopped by full collections, and Lapse's would not. What it
loads later, it does not freeze; neither does Lapse.
"""

from __future__ import annotations

import socket

import uvicorn
from google.adk.cli import main

from bench.support.children import freeze

_startup = uvicorn.Server.startup


async def _frozen(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
    await _startup(self, sockets)
    freeze()


if __name__ == "__main__":
    uvicorn.Server.startup = _frozen  # type: ignore[method-assign]
    main()
