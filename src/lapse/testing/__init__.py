"""Tries what is built with Lapse: the tools of users' own tests, and `lapse verify`.

The pytest plug-in imports this module, so it loads the rest late.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lapse.testing.clock import Clock
    from lapse.testing.clocked import Browser, ClockedLapse
    from lapse.testing.playing import play
    from lapse.testing.server import Server

__all__ = ["Browser", "Clock", "ClockedLapse", "Server", "play"]

_HOMES = {"Browser": "clocked", "Clock": "clock", "ClockedLapse": "clocked", "play": "playing"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lapse.testing' has no attribute {name!r}")
    return getattr(import_module(f"lapse.testing.{_HOMES.get(name, 'server')}"), name)
