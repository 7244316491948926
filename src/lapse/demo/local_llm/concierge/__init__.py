"""The concierge, as ADK finds it."""

from . import agent

__all__ = ["agent"]
