"""The settings of the log."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from lapse.core.setting_types import SliceSettings
from lapse.telemetry.logs import LogFormat, LogLevel, LogOptions

_AnyCase = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)


class LogSettings(SliceSettings):
    """The settings of log lines."""

    log_format: LogFormat = Field(default=LogFormat.CONSOLE, validation_alias="LAPSE_LOG_FORMAT")
    log_level: Annotated[LogLevel, _AnyCase] = Field(
        default=LogLevel.INFO, validation_alias="LAPSE_LOG_LEVEL"
    )
    log_packages: Annotated[LogLevel | None, _AnyCase] = Field(
        default=None, validation_alias="LAPSE_LOG_PACKAGES"
    )
    log_error_texts: bool = Field(default=False, validation_alias="LAPSE_LOG_ERROR_TEXTS")
    access_log: bool = Field(default=False, validation_alias="LAPSE_ACCESS_LOG")

    @property
    def log(self) -> LogOptions:
        """Return what is logged, and how."""
        return LogOptions(
            self.log_format, self.log_level, self.log_packages, error_texts=self.log_error_texts
        )
