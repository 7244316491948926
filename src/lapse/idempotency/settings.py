"""The settings of idempotency keys."""

from __future__ import annotations

from pydantic import Field

from lapse.core.setting_types import SliceSettings
from lapse.idempotency.rules import KeyRules


class IdempotencySettings(SliceSettings):
    """The settings of idempotency keys; docs/settings.md explains each."""

    keys_per_user: int = Field(
        default=KeyRules().per_user,
        ge=1,
        le=1_000_000,
        validation_alias="LAPSE_IDEMPOTENCY_KEYS_PER_USER",
    )

    @property
    def key_rules(self) -> KeyRules:
        """Return the limits of idempotency keys."""
        return KeyRules(per_user=self.keys_per_user)
