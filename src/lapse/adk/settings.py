"""The settings of ADK's server, and of what reads ADK's events. Nothing here imports ADK."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from pydantic import Field

from lapse.adk.server_options import ServerOptions
from lapse.core.errors import InvalidValueError
from lapse.core.setting_types import Names, SliceSettings

REMEMBERED_EVENTS: Final = 2048

_DEFAULTS: Final = ServerOptions()


class AdkSettings(SliceSettings):
    """The options of ADK's server, named as in `ServerOptions`, and how many events are kept.

    URIs are not shown in errors, because they may hold a password.
    """

    artifact_service_uri: str | None = Field(
        default=None, validation_alias="LAPSE_ARTIFACT_SERVICE_URI", repr=False
    )
    memory_service_uri: str | None = Field(
        default=None, validation_alias="LAPSE_MEMORY_SERVICE_URI", repr=False
    )
    eval_storage_uri: str | None = Field(
        default=None, validation_alias="LAPSE_EVAL_STORAGE_URI", repr=False
    )
    use_local_storage: bool = Field(
        default=_DEFAULTS.use_local_storage, validation_alias="LAPSE_USE_LOCAL_STORAGE"
    )
    a2a: bool = Field(default=_DEFAULTS.a2a, validation_alias="LAPSE_A2A")
    task_store_uri: str | None = Field(
        default=None, validation_alias="LAPSE_TASK_STORE_URI", repr=False
    )
    otel_to_cloud: bool = Field(
        default=_DEFAULTS.otel_to_cloud, validation_alias="LAPSE_OTEL_TO_CLOUD"
    )
    trace_to_cloud: bool = Field(
        default=_DEFAULTS.trace_to_cloud, validation_alias="LAPSE_TRACE_TO_CLOUD"
    )
    url_prefix: str | None = Field(default=None, validation_alias="LAPSE_URL_PREFIX")
    extra_plugins: Names = Field(default=(), validation_alias="LAPSE_EXTRA_PLUGINS")
    reload_agents: bool = Field(
        default=_DEFAULTS.reload_agents, validation_alias="LAPSE_RELOAD_AGENTS"
    )
    auto_create_session: bool = Field(
        default=_DEFAULTS.auto_create_session, validation_alias="LAPSE_AUTO_CREATE_SESSION"
    )
    max_llm_calls: int | None = Field(default=None, validation_alias="LAPSE_MAX_LLM_CALLS")
    trigger_sources: Names = Field(default=(), validation_alias="LAPSE_TRIGGER_SOURCES")
    trigger_oidc_audience: str | None = Field(
        default=None, validation_alias="LAPSE_TRIGGER_OIDC_AUDIENCE"
    )
    trigger_oidc_service_accounts: Names = Field(
        default=(), validation_alias="LAPSE_TRIGGER_OIDC_SERVICE_ACCOUNTS"
    )
    avatar_config: str | None = Field(default=None, validation_alias="LAPSE_AVATAR_CONFIG")
    gemini_enterprise_app_name: str | None = Field(
        default=None, validation_alias="LAPSE_GEMINI_ENTERPRISE_APP_NAME"
    )
    express_mode: bool = Field(
        default=_DEFAULTS.express_mode, validation_alias="LAPSE_EXPRESS_MODE"
    )
    enable_features: Names = Field(default=(), validation_alias="LAPSE_ENABLE_FEATURES")
    disable_features: Names = Field(default=(), validation_alias="LAPSE_DISABLE_FEATURES")

    remembered_events: int = Field(
        default=REMEMBERED_EVENTS, ge=0, le=1_000_000, validation_alias="LAPSE_REMEMBERED_EVENTS"
    )

    @property
    def server(self) -> ServerOptions:
        """Return what ADK's server is told; of settings without `problems` only."""
        return ServerOptions(**{one.name: getattr(self, one.name) for one in fields(ServerOptions)})

    def problems(self) -> list[str]:
        """Return what is wrong with these settings together."""
        try:
            _ = self.server
        except InvalidValueError as error:
            return [*super().problems(), f"LAPSE_{error.field.upper()}: {error.reason}"]
        return super().problems()
