"""The setting of adoption."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from lapse.core.setting_types import SliceSettings


class Adopt(StrEnum):
    """Which sessions that stock ADK leaves in the store are adopted while it is swept."""

    OFF = "off"
    NEW = "new"
    ALL = "all"


class AdoptionSettings(SliceSettings):
    """Which sessions are adopted."""

    adopt: Adopt = Field(default=Adopt.OFF, validation_alias="LAPSE_ADOPT")
