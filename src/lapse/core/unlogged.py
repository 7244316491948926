"""Requests of Lapse's own whose URLs and answers the HTTP library must not log."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Final

from lapse.core.contexts import Having

_LOGGERS: Final = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)
"""httpx logs each URL at INFO, and httpcore each header of an answer at DEBUG."""

_is_unlogged: ContextVar[bool] = ContextVar("lapse_unlogged_request", default=False)


def unlogged() -> Having[bool]:
    """Have the HTTP library log nothing of the requests that this task makes inside the block.

    Other requests, such as those of the application around Lapse, are logged as before.
    """
    return Having(_is_unlogged, value=True)


def _is_logged(_: logging.LogRecord) -> bool:
    return not _is_unlogged.get()


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_is_logged)
