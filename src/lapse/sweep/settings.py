"""The settings of the sweep and its brake."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from lapse.core.setting_types import Minutes, ShareOrWhole, SliceSettings
from lapse.sweep.rules import BrakeOptions

_DEFAULTS: Final = BrakeOptions()


class SweepSettings(SliceSettings):
    """Whether this process sweeps, and when a brake is set."""

    sweeper: bool = Field(default=True, validation_alias="LAPSE_SWEEPER")
    brake_share: ShareOrWhole = Field(default=_DEFAULTS.share, validation_alias="LAPSE_BRAKE_SHARE")
    brake_sessions: int = Field(
        default=_DEFAULTS.sessions, ge=0, validation_alias="LAPSE_BRAKE_SESSIONS"
    )
    brake_jump: Minutes = Field(
        default=_DEFAULTS.jump, validation_alias="LAPSE_BRAKE_CLOCK_MINUTES"
    )

    @property
    def brakes(self) -> BrakeOptions:
        """Return when a brake is to be set."""
        return BrakeOptions(self.brake_share, self.brake_sessions, self.brake_jump)
