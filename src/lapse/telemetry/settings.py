"""The setting of the log."""

from __future__ import annotations

from pydantic import Field

from lapse.core.setting_types import SliceSettings
from lapse.telemetry.logs import LogFormat


class LogSettings(SliceSettings):
    """The setting of log lines."""

    log_format: LogFormat = Field(default=LogFormat.CONSOLE, validation_alias="LAPSE_LOG_FORMAT")
