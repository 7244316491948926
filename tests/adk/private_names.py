"""The private names of other packages that Lapse uses, and what each one is for."""

from __future__ import annotations

from dataclasses import dataclass

from adk_versions import is_before

ADK_CLI = "google.adk.cli"


@dataclass(frozen=True)
class Name:
    """One name: where it is, what Lapse passes to it, what for, and what older versions have."""

    module: str
    path: str
    use: str
    parameters: tuple[str, ...] | None = None
    since: str = ""
    before: str = ""
    """The version of ADK with which another name takes its place."""

    @property
    def is_used(self) -> bool:
        """Whether Lapse uses it with the installed version of ADK."""
        is_too_old = bool(self.since) and is_before(self.since)
        return not is_too_old and (not self.before or is_before(self.before))

    def __str__(self) -> str:
        return f"{self.module}.{self.path}"


SERVICE = "google.adk.sessions.base_session_service"
UVICORN = "uvicorn.protocols.http.httptools_impl"

NAMES = [
    Name(
        SERVICE,
        "BaseSessionService._apply_temp_state",
        "`append_event` puts an event's `temp:` state into the session object with it",
        ("session", "event"),
    ),
    Name(
        SERVICE,
        "BaseSessionService._trim_temp_delta_state",
        "`append_event` takes `temp:` state off an event with it before the event is stored",
        ("event",),
    ),
    Name(
        SERVICE,
        "BaseSessionService._commit_event_to_session",
        "`append_event` adds a stored event to the session object with it",
        ("session", "event"),
        since="2.10",
    ),
    Name(
        SERVICE,
        "BaseSessionService._update_session_state",
        "`append_event` changes the state of the session object with it, where there is no other",
        ("session", "event"),
        before="2.10",
    ),
    Name(
        f"{ADK_CLI}.adk_web_server",
        "AdkWebServer",
        "is ADK's server before there is ApiServer",
        (
            *("agent_loader", "session_service", "memory_service", "artifact_service"),
            *("credential_service", "eval_sets_manager", "eval_set_results_manager", "agents_dir"),
        ),
        before="2.0",
    ),
    Name(
        f"{ADK_CLI}.adk_web_server",
        "AdkWebServer.get_runner_async",
        "is overridden where that is ADK's server",
        ("app_name",),
        before="2.0",
    ),
    Name(
        f"{ADK_CLI}.adk_web_server",
        "RunAgentRequest",
        "is the body of a run where that is ADK's server",
        ("appName", "userId", "sessionId", "newMessage", "streaming", "stateDelta"),
        before="2.0",
    ),
    Name(
        "google.adk.auth.auth_credential",
        "_redact_credential_secrets",
        "stored frames of a run black out secrets with it, as `/run_sse` does",
        ("value",),
        since="2.12",
    ),
    Name(
        "google.adk.events._internal_metadata",
        "public_event",
        "stored frames of a run leave out with it what `/run_sse` leaves out of an event",
        ("event",),
        since="2.11",
    ),
    Name(
        "google.adk.events._internal_metadata",
        "public_session",
        "answers with sessions leave out with it what ADK's leave out",
        ("session",),
        since="2.11",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_redacted_session_response",
        "ADK's routes answer with sessions by it; Lapse puts its own in its place",
        ("session",),
        since="2.12",
    ),
    Name(
        "fastapi.routing",
        "request_response",
        "ADK's routes get with it a request whose body was parsed before",
        ("func",),
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_OriginCheckMiddleware",
        "plain requests skip this middleware; `host_check` asks what it knows of hosts",
        ("app", "has_configured_allowed_origins", "allowed_origins", "allowed_origin_regex"),
        since="2.0",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_DefaultAppRewriteMiddleware",
        "plain requests name their app, so they skip this middleware",
        ("app", "default_app_name"),
        since="2.0",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_is_dns_rebinding_request",
        "a plain request has a host that ADK does not refuse",
        ("scope", "bind_host", "allowed_request_hosts"),
        since="2.7",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "_get_allowed_request_hosts",
        "the check of hosts needs it",
        ("allowed_literal_origins",),
        since="2.7",
    ),
    Name(
        "google.adk.version",
        "__version__",
        "plain requests skip the middleware only with versions that were compared",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "RunAgentRequest",
        "runs that outlive their connection are asked for with it",
        ("appName", "userId", "sessionId", "newMessage", "streaming", "stateDelta"),
        since="2.0",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "ApiServer",
        "`mount(app, runners=…)` has it run agents without ADK's application",
        (
            *("agent_loader", "session_service", "memory_service", "artifact_service"),
            *("credential_service", "eval_sets_manager", "eval_set_results_manager", "agents_dir"),
        ),
        since="2.0",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "ApiServer.get_runner_async",
        "`mount(app, runners=…)` overrides it to give the runners it was given",
        ("app_name",),
        since="2.0",
    ),
    Name(
        f"{ADK_CLI}.api_server",
        "ApiServer.get_fast_api_app",
        "`mount(app, runners=…)` takes the endpoint of `/run_sse` from its application",
        (),
        since="2.0",
    ),
    Name(
        f"{ADK_CLI}.fast_api",
        "get_fast_api_app",
        "`lapse serve` serves its application",
        (
            *("agents_dir", "agent_loader", "session_service_uri", "artifact_service_uri"),
            *("allow_origins", "web", "bind_host", "host", "port"),
        ),
        since="2.7",
    ),
    Name(
        f"{ADK_CLI}.service_registry",
        "get_service_registry",
        "`lapse serve` hands ADK its session service through it",
        (),
    ),
    Name(
        f"{ADK_CLI}.service_registry",
        "ServiceRegistry.register_session_service",
        "`lapse serve` hands ADK its session service with it",
        ("scheme", "factory"),
    ),
    Name(
        f"{ADK_CLI}.service_registry",
        "ServiceRegistry.register_artifact_service",
        "`lapse serve` learns with it which artifact service ADK makes",
        ("scheme", "factory"),
    ),
    Name(
        f"{ADK_CLI}.utils.service_factory",
        "create_artifact_service_from_options",
        "`lapse serve` makes the artifact service with it that ADK would make",
        ("base_dir", "artifact_service_uri", "strict_uri", "use_local_storage"),
    ),
    Name(
        f"{ADK_CLI}.utils.agent_loader",
        "AgentLoader.load_agent",
        "`lapse serve` turns its ValueErrors into answers that name no folder",
        ("agent_name",),
    ),
    Name(
        f"{ADK_CLI}.utils._nested_agent_loader",
        "NestedAgentLoader.load_agent",
        "`lapse serve --web` turns its ValueErrors into answers that name no folder",
        ("agent_name",),
        since="2.4",
    ),
    Name(
        f"{ADK_CLI}.utils.base_agent_loader",
        "BaseAgentLoader._allow_special_agents",
        "ADK's own agents are served where it is set, and to few",
        since="2.5",
    ),
    Name(
        f"{ADK_CLI}.utils.agent_loader",
        "SPECIAL_AGENTS_DIR",
        "the names of ADK's own agents are read off this folder",
    ),
    Name(
        f"{ADK_CLI}.utils.agent_loader",
        "AgentLoader.list_agents",
        "the apps that it lists are served, and no others",
        (),
    ),
    Name(
        f"{ADK_CLI}.utils._nested_agent_loader",
        "NestedAgentLoader.list_agents",
        "with `--web` the apps that it lists are served, and no others",
        (),
        since="2.4",
    ),
    Name(
        "google.adk.artifacts.artifact_util",
        "get_artifact_uri",
        "clients are told of an artifact by it, and not by the file of it",
        ("app_name", "user_id", "filename", "version", "session_id"),
    ),
    Name(
        "fastapi.dependencies.models",
        "Dependant",
        "faults of an endpoint are told from bodies that cannot be read by its `call`",
        ("call",),
    ),
    *(
        Name(
            UVICORN,
            f"HttpToolsProtocol.{method}",
            "requests are bounded before there is one by overriding it (limits/protocol.py)",
            parameters,
        )
        for method, parameters in {
            "connection_made": ("transport",),
            "connection_lost": ("exc",),
            "data_received": ("data",),
            "on_message_begin": (),
            "on_header": ("name", "value"),
            "on_headers_complete": (),
            "on_body": ("body",),
            "on_message_complete": (),
            "on_response_complete": (),
            "handle_websocket_upgrade": (),
            "send_400_response": ("msg",),
            "pause_writing": (),
            "resume_writing": (),
        }.items()
    ),
    *(
        Name(
            "uvicorn.protocols.websockets.auto",
            f"AutoWebSocketsProtocol.{method}",
            "unread bytes of WebSockets are watched by overriding it (limits/protocol.py)",
            parameters,
        )
        for method, parameters in {
            "pause_writing": (),
            "resume_writing": (),
            "connection_lost": ("exc",),
        }.items()
    ),
    *(
        Name(
            "uvicorn",
            f"Server.{method}",
            "`lapse serve` says where it listens, and lets runs finish, by overriding it",
            ("sockets",),
        )
        for method in ("startup", "shutdown")
    ),
]
