"""The settings of notices."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from lapse.core.setting_types import Seconds, SliceSettings, WarningMinutes
from lapse.notices.rules import WatchOptions

_DEFAULTS: Final = WatchOptions()


class NoticeSettings(SliceSettings):
    """When browsers are warned, and how many streams may be open."""

    warn_before: WarningMinutes = Field(
        default=_DEFAULTS.warn_before, validation_alias="LAPSE_WARN_MINUTES"
    )
    heartbeat: Seconds = Field(
        default=_DEFAULTS.heartbeat, validation_alias="LAPSE_HEARTBEAT_SECONDS"
    )
    streams_per_session: int = Field(
        default=_DEFAULTS.per_session, ge=1, le=1000, validation_alias="LAPSE_STREAMS_PER_SESSION"
    )
    streams_per_user: int = Field(
        default=_DEFAULTS.per_user, ge=1, le=10_000, validation_alias="LAPSE_STREAMS_PER_USER"
    )

    @property
    def watch(self) -> WatchOptions:
        """Return the options of the watcher."""
        return WatchOptions(
            warn_before=self.warn_before,
            heartbeat=self.heartbeat,
            per_session=self.streams_per_session,
            per_user=self.streams_per_user,
        )
