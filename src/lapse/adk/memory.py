"""ADK's memory services, by their URIs."""

from __future__ import annotations

from google.adk.cli.service_registry import get_service_registry
from google.adk.memory.base_memory_service import BaseMemoryService

__all__ = ["BaseMemoryService", "memory_service"]


def memory_service(uri: str) -> BaseMemoryService:
    """Return ADK's memory service for a URI.

    Raises:
        ValueError: ADK has no memory service for this URI.
    """
    made = get_service_registry().create_memory_service(uri)
    if made is None:
        raise ValueError(f"there is no memory service for {uri.partition('://')[0]!r:.40}")
    return made
