"""The settings of the store."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from lapse.core.lifecycle import Rules
from lapse.core.messages import UsedByRule
from lapse.core.setting_types import Hours, Seconds, SliceSettings, UsedBySetting, names
from lapse.store.options import ConnectionOptions, PostgresFeature

PostgresFeatures = Annotated[frozenset[PostgresFeature], NoDecode, BeforeValidator(names)]
"""Features of PostgreSQL, separated by commas."""

_RULES: Final = Rules()
_DEFAULTS: Final = ConnectionOptions()


class StoreSettings(SliceSettings):
    """Where sessions live, how long they are restorable, and how to reach a server."""

    cleanup_enabled: bool = Field(default=True, validation_alias="SESSION_CLEANUP_ENABLED")
    store_url: str = Field(
        default="sqlite:///lapse.db", validation_alias="LAPSE_STORE_URL", repr=False
    )
    horizon: Hours = Field(default=_RULES.horizon, validation_alias="LAPSE_RESTORE_HOURS")
    used_by: UsedBySetting = Field(default=UsedByRule(), validation_alias="LAPSE_USED_BY")
    max_shared_state: int = Field(
        default=_RULES.shared_state // 1024,
        ge=1,
        le=100 * 1024,
        validation_alias="LAPSE_MAX_SHARED_STATE_KIB",
    )
    pool_size: int = Field(
        default=_DEFAULTS.pool_size, ge=1, le=1000, validation_alias="LAPSE_POOL_SIZE"
    )
    statement_timeout: Seconds = Field(
        default=_DEFAULTS.statement_timeout, validation_alias="LAPSE_STATEMENT_TIMEOUT_SECONDS"
    )
    connect_timeout: Seconds = Field(
        default=_DEFAULTS.connect_timeout, validation_alias="LAPSE_CONNECT_TIMEOUT_SECONDS"
    )
    statement_cache: int = Field(
        default=_DEFAULTS.statement_cache, ge=0, le=10_000, validation_alias="LAPSE_STATEMENT_CACHE"
    )

    postgres_without: PostgresFeatures = Field(
        default=_DEFAULTS.without, validation_alias="LAPSE_POSTGRES_WITHOUT"
    )

    @property
    def is_shared(self) -> bool:
        """Return whether servers on other machines may use the same store."""
        return not self.store_url.startswith("sqlite")

    @property
    def rules(self) -> Rules:
        """Return the rules that a store enforces."""
        return Rules(
            horizon=self.horizon,
            enforced=self.cleanup_enabled,
            shared_state=self.max_shared_state * 1024,
        )

    @property
    def connection(self) -> ConnectionOptions:
        """Return how to reach a store that is a server."""
        return ConnectionOptions(
            pool_size=self.pool_size,
            statement_timeout=self.statement_timeout,
            connect_timeout=self.connect_timeout,
            statement_cache=self.statement_cache,
            without=self.postgres_without,
        )
