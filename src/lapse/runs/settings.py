"""The settings of detached runs."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from lapse.core.setting_types import Seconds, SecondsOrNone, SliceSettings
from lapse.runs.rules import RunLimits

_DEFAULTS: Final = RunLimits()


class RunSettings(SliceSettings):
    """The settings of detached runs; docs/settings.md explains each."""

    runs_per_process: int = Field(
        default=_DEFAULTS.per_process, ge=1, le=10_000, validation_alias="LAPSE_RUNS_PER_PROCESS"
    )
    runs_per_user: int = Field(
        default=_DEFAULTS.per_user, ge=1, le=10_000, validation_alias="LAPSE_RUNS_PER_USER"
    )
    run_duration: Seconds = Field(default=_DEFAULTS.duration, validation_alias="LAPSE_RUN_SECONDS")
    run_grace: SecondsOrNone = Field(
        default=_DEFAULTS.grace, validation_alias="LAPSE_RUN_GRACE_SECONDS"
    )
    run_queue: int = Field(
        default=_DEFAULTS.queue, ge=0, le=1000, validation_alias="LAPSE_RUN_QUEUE"
    )

    @property
    def run_limits(self) -> RunLimits:
        """Return the limits of runs."""
        return RunLimits(
            per_process=self.runs_per_process,
            per_user=self.runs_per_user,
            duration=self.run_duration,
            grace=self.run_grace,
            queue=self.run_queue,
        )
