"""The settings of retention: the policy file, the hooks, and what becomes of memory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field

from lapse.core.setting_types import SliceSettings
from lapse.retention.policy import PolicyError, read_policy


class PurgedMemory(StrEnum):
    """What becomes of the memories of a purged session in the memory service."""

    FORGET = "forget"
    """It is deleted after the purge, where the service can delete and no hook comes before it."""

    SAVE = "save"
    """The session is added to it before the purge."""

    KEEP = "keep"
    """It stays as it is."""


class RetentionSettings(SliceSettings):
    """Which retention policy there is; it takes nothing before it is confirmed."""

    retention_file: Path | None = Field(default=None, validation_alias="LAPSE_RETENTION_FILE")
    retention_hooks: str | None = Field(default=None, validation_alias="LAPSE_RETENTION_HOOKS")
    retention_memory: PurgedMemory = Field(
        default=PurgedMemory.FORGET, validation_alias="LAPSE_RETENTION_MEMORY"
    )

    def problems(self) -> list[str]:
        """Return what is wrong with the policy file."""
        problems = super().problems()
        if self.retention_file is not None:
            try:
                read_policy(self.retention_file)
            except PolicyError as error:
                place = f"LAPSE_RETENTION_FILE={self.retention_file}"
                problems += [f"{place}: {problem}" for problem in error.problems]
        return problems
