"""The settings of what reads ADK's events. Nothing here imports ADK."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from lapse.core.setting_types import SliceSettings

REMEMBERED_EVENTS: Final = 2048


class AdkSettings(SliceSettings):
    """The settings of what reads ADK's events; docs/settings.md explains each."""

    remembered_events: int = Field(
        default=REMEMBERED_EVENTS, ge=0, le=1_000_000, validation_alias="LAPSE_REMEMBERED_EVENTS"
    )
