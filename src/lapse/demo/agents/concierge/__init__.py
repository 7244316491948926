"""The demo concierge."""

from . import agent

__all__ = ["agent"]
