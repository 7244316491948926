"""The settings of how much of a request is taken in."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from lapse.core.setting_types import Seconds, SliceSettings
from lapse.limits.rules import KIB, Bounds

_DEFAULTS: Final = Bounds()


class LimitSettings(SliceSettings):
    """The settings of how much of a request is taken in."""

    max_body: int = Field(
        default=_DEFAULTS.body // KIB, ge=64, le=1024 * KIB, validation_alias="LAPSE_MAX_BODY_KIB"
    )
    max_state: int = Field(
        default=_DEFAULTS.state // KIB, ge=1, le=1024 * KIB, validation_alias="LAPSE_MAX_STATE_KIB"
    )
    body_time: Seconds = Field(default=_DEFAULTS.body_time, validation_alias="LAPSE_BODY_SECONDS")
    head_time: Seconds = Field(default=_DEFAULTS.head_time, validation_alias="LAPSE_HEADER_SECONDS")
    max_connections: int = Field(
        default=_DEFAULTS.connections,
        ge=10,
        le=1_000_000,
        validation_alias="LAPSE_MAX_CONNECTIONS",
    )
    write_time: Seconds = Field(
        default=_DEFAULTS.write_time, validation_alias="LAPSE_WRITE_SECONDS"
    )
    max_unread: int = Field(
        default=_DEFAULTS.unread // KIB,
        ge=1024,
        le=64 * 1024 * KIB,
        validation_alias="LAPSE_MAX_UNREAD_KIB",
    )

    @property
    def bounds(self) -> Bounds:
        """Return how much of a request is taken in."""
        return Bounds(
            body=self.max_body * KIB,
            state=self.max_state * KIB,
            body_time=self.body_time,
            head_time=self.head_time,
            connections=self.max_connections,
            write_time=self.write_time,
            unread=self.max_unread * KIB,
        )
