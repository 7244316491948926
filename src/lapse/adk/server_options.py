"""The options of ADK's server, beside its agents and their sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lapse.core.arguments import check_fields
from lapse.core.errors import InvalidValueError

TRIGGERS: Final = ("pubsub", "eventarc")
"""The sources of triggers that ADK's server has routes for."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Options of ADK's server, by the names that `get_fast_api_app` and `adk api_server` give them.

    Attributes:
        artifact_service_uri: where artifacts are kept, such as `gs://BUCKET`, `file:///FOLDER` or
            `memory://`; None: in the folder of each agent, which other replicas do not see.
        memory_service_uri: where ADK keeps memories, such as `rag://CORPUS` or `sqlite:///FILE`;
            None: in this process.
        eval_storage_uri: where evaluations are kept: `gs://BUCKET`; None: in the folders of agents.
        use_local_storage: whether artifacts without a URI may be kept in the folders of agents;
            otherwise they are kept in memory.
        a2a: whether agents with an `agent.json` are served by the A2A protocol at `/a2a/APP`.
        task_store_uri: where the tasks of A2A are kept; None: in this process.
        otel_to_cloud: whether OpenTelemetry's data go to Google Cloud.
        trace_to_cloud: whether traces go to Google Cloud Trace.
        url_prefix: the path at which a proxy serves the application, or the URL with that path.
        extra_plugins: plugins of every agent: dotted names of classes or instances.
        reload_agents: whether agents are loaded again when their files change.
        auto_create_session: whether a run creates its session if there is none.
        max_llm_calls: how often a run may call a model, 0 for no limit; None: ADK's default.
        trigger_sources: the sources that may trigger agents: `pubsub`, `eventarc`.
        trigger_oidc_audience: the audience of the tokens that Google signs for triggers; sources
            need it.
        trigger_oidc_service_accounts: the accounts that may trigger; none: every one of Google's.
        avatar_config: the avatar of live video, as JSON or as a file of JSON.
        gemini_enterprise_app_name: the app that Gemini Enterprise calls at `/api/reasoning_engine`.
        express_mode: whether that app runs in express mode, by GOOGLE_API_KEY alone.
        enable_features: features of ADK that are switched on, in the whole process.
        disable_features: features of ADK that are switched off, in the whole process.

    Raises:
        InvalidValueError: a value is wrong, or needs another one.
    """

    artifact_service_uri: str | None = None
    memory_service_uri: str | None = None
    eval_storage_uri: str | None = None
    use_local_storage: bool = True
    a2a: bool = False
    task_store_uri: str | None = None
    otel_to_cloud: bool = False
    trace_to_cloud: bool = False
    url_prefix: str | None = None
    extra_plugins: tuple[str, ...] = ()
    reload_agents: bool = False
    auto_create_session: bool = False
    max_llm_calls: int | None = None
    trigger_sources: tuple[str, ...] = ()
    trigger_oidc_audience: str | None = None
    trigger_oidc_service_accounts: tuple[str, ...] = ()
    avatar_config: str | None = None
    gemini_enterprise_app_name: str | None = None
    express_mode: bool = False
    enable_features: tuple[str, ...] = ()
    disable_features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.url_prefix and not self.url_prefix.startswith(("/", "http://", "https://")):
            raise InvalidValueError(
                "url_prefix", f"must begin with / or https://, not {self.url_prefix!r:.60}"
            )
        for source in self.trigger_sources:
            if source not in TRIGGERS:
                raise InvalidValueError(
                    "trigger_sources", f"must be one of {', '.join(TRIGGERS)}, not {source!r:.60}"
                )
        if self.trigger_sources and not self.trigger_oidc_audience:
            raise InvalidValueError(
                "trigger_sources", "needs trigger_oidc_audience, that of the accepted tokens"
            )
        if self.trigger_oidc_service_accounts and not self.trigger_oidc_audience:
            raise InvalidValueError(
                "trigger_oidc_service_accounts", "needs trigger_oidc_audience, too"
            )
        if self.task_store_uri and not self.a2a:
            raise InvalidValueError("task_store_uri", "needs a2a: it keeps the tasks of A2A")
        if self.express_mode and not self.gemini_enterprise_app_name:
            raise InvalidValueError("express_mode", "needs gemini_enterprise_app_name, too")
