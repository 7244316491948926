"""What ADK's services of other kinds, and users' own, cannot do where ADK is older."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.adk.sessions.base_session_service import BaseSessionService


async def flush(service: BaseSessionService) -> None:
    """Flush a session service; before 1.33 there is nothing to flush."""
    if hasattr(service, "flush"):
        await service.flush()


async def user_state(service: BaseSessionService, app_name: str, user_id: str) -> dict[str, Any]:
    """Return a user's state as a session service tells it.

    Raises:
        NotImplementedError: it cannot; before 2.2 no service can.
    """
    if not hasattr(service, "get_user_state"):
        raise NotImplementedError
    return await service.get_user_state(app_name=app_name, user_id=user_id)


def can_delete_memory(service: object) -> bool:
    """Return whether a memory service has a way to delete one memory; before 2.13 none has.

    One that inherits ADK's may still raise NotImplementedError.
    """
    return hasattr(service, "delete_memory")


def deletes_memory(service: object) -> bool:
    """Return whether a memory service has a way of its own to delete one memory."""
    from google.adk.memory.base_memory_service import BaseMemoryService

    inherited = getattr(BaseMemoryService, "delete_memory", None)
    return getattr(type(service), "delete_memory", inherited) is not inherited
