"""The settings of conversations in another session service. Nothing here imports ADK."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from lapse.conversations.rules import Bounds
from lapse.core.setting_types import Seconds, SliceSettings

_DEFAULTS = Bounds()


class ConversationSettings(SliceSettings):
    """Where used sessions live, and how long calls of that service may take.

    The URI is not shown in errors, because it may hold a password.
    """

    conversations_uri: str | None = Field(
        default=None, validation_alias="LAPSE_CONVERSATIONS_URI", repr=False
    )
    conversations_timeout: Seconds = Field(
        default=_DEFAULTS.timeout,
        ge=timedelta(milliseconds=10),
        le=timedelta(minutes=10),
        validation_alias="LAPSE_CONVERSATIONS_SECONDS",
    )

    @property
    def conversation_bounds(self) -> Bounds:
        """Return how long calls of the other service may take."""
        return Bounds(timeout=self.conversations_timeout)
