"""The session service that settings ask for: on Lapse's store alone, or with another service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from google.adk.sessions.base_session_service import BaseSessionService

from lapse.adk.events import REMEMBERED
from lapse.adk.service import LapseSessionService
from lapse.conversations.rules import Bounds
from lapse.core.arguments import check
from lapse.core.messages import UsedByRule
from lapse.quotas.rules import Quotas
from lapse.store.database import Database

__all__ = ["BaseSessionService", "check_service", "service_of"]


def check_service(conversations: object) -> None:
    """Check that an argument `conversations` is a session service.

    Raises:
        InvalidValueError: it is none.
    """
    check(conversations=(conversations, BaseSessionService))


class ServiceSettings(Protocol):
    """What a service is told by settings."""

    @property
    def conversations_uri(self) -> str | None: ...

    @property
    def conversation_bounds(self) -> Bounds: ...

    @property
    def remembered_events(self) -> int: ...

    @property
    def quotas(self) -> Quotas: ...

    @property
    def used_by(self) -> UsedByRule: ...


def service_of(
    store: Database,
    settings: ServiceSettings,
    conversations: BaseSessionService | None,
    agents_dir: Path,
    **options: Any,
) -> LapseSessionService:
    """Return the session service on a store, with `options` of LapseSessionService.

    Used sessions live in `conversations`, else in the service of the settings' URI, else in ADK's
    tables in the store. `agents_dir` may register services that the URI names.

    Raises:
        InvalidValueError: the URI names no service.
    """
    REMEMBERED.keep(settings.remembered_events)
    options |= {"quotas": settings.quotas, "used_by": settings.used_by}
    if conversations is None and settings.conversations_uri is None:
        return LapseSessionService(store, **options)
    # Imported here, because most servers do without.
    from lapse.adk.conversations_uri import service_from_uri, warn_of_contradictions
    from lapse.adk.conversing import ConversingSessionService

    if conversations is None:
        conversations = service_from_uri(str(settings.conversations_uri), agents_dir)
    warn_of_contradictions(conversations)
    bounds = settings.conversation_bounds
    return ConversingSessionService(store, conversations, bounds=bounds, **options)
