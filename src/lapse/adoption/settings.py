"""The setting that switches adoption on."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from lapse.core.setting_types import SliceSettings


class Adopt(StrEnum):
    """Which empty sessions of stock ADK a server or sweeper adopts.

    NEW: those created since Lapse's tables were created. ALL: older ones, too.
    """

    OFF = "off"
    NEW = "new"
    ALL = "all"


class AdoptionSettings(SliceSettings):
    """The setting of adoption."""

    adopt: Adopt = Field(default=Adopt.OFF, validation_alias="LAPSE_ADOPT")
