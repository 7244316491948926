"""The sockets that commands listen on, and how many connections a process can have."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lapse.cli.command import fail

if TYPE_CHECKING:
    from lapse.limits.rules import Bounds

_OTHER_FILES: Final = 150
"""Open files of a server besides its connections: those of the store, the log and libraries."""


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Return a socket at an address; one that cannot be had ends the command."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        fail(f"cannot listen on {host}:{port}: {error.strerror}; choose another {option}")
    return listener


def address(listener: socket.socket) -> str:
    """Return the URL of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def within_files(bounds: Bounds) -> Bounds:
    """Return the bounds with at most as many connections as this process may open files.

    It raises the process's soft limit on open files, if that is too low and the hard limit allows.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = bounds.connections + _OTHER_FILES
    if soft < wanted:
        soft = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return replace(bounds, connections=max(1, min(bounds.connections, soft - _OTHER_FILES)))
