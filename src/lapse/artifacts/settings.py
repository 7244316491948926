"""The setting of artifacts."""

from __future__ import annotations

from pydantic import Field

from lapse.core.setting_types import SliceSettings


class ArtifactSettings(SliceSettings):
    """Whether artifacts of sessions that ended before their first message are deleted."""

    artifacts: bool = Field(default=True, validation_alias="LAPSE_DELETE_ARTIFACTS")
