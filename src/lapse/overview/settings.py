"""The settings of the processes that serve."""

from __future__ import annotations

from pydantic import Field

from lapse.core.setting_types import SliceSettings


class ProcessSettings(SliceSettings):
    """How many processes `lapse serve` answers with."""

    workers: int = Field(default=1, ge=1, le=256, validation_alias="LAPSE_WORKERS")
