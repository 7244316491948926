"""The settings of the log."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from lapse.core.setting_types import SliceSettings
from lapse.telemetry.logs import LogFormat, LogLevel

_AnyCase = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)


class LogSettings(SliceSettings):
    """The settings of log lines."""

    log_format: LogFormat = Field(default=LogFormat.CONSOLE, validation_alias="LAPSE_LOG_FORMAT")
    log_level: Annotated[LogLevel, _AnyCase] = Field(
        default=LogLevel.INFO, validation_alias="LAPSE_LOG_LEVEL"
    )
