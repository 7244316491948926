"""The options of `lapse serve` that ADK's server has, too; each is a setting of the same name.

`adk api_server` spells them with underscores; the command line takes both spellings.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

_PANEL: Final = "ADK's server"


def _option(name: str, help_text: str, **more: Any) -> Any:
    return typer.Option(name, help=help_text, rich_help_panel=_PANEL, **more)


ArtifactUri = Annotated[
    str | None,
    _option(
        "--artifact-service-uri",
        "Where artifacts are kept: gs://BUCKET, file:///FOLDER or memory://; by default in the "
        "folder of each agent, which other replicas do not see.",
        metavar="URI",
    ),
]
MemoryUri = Annotated[
    str | None,
    _option(
        "--memory-service-uri",
        "Where ADK keeps memories: rag://CORPUS, agentengine://ENGINE, sqlite:///FILE or "
        "memory://; by default in this process.",
        metavar="URI",
    ),
]
EvalUri = Annotated[
    str | None,
    _option(
        "--eval-storage-uri",
        "Where evaluations are kept: gs://BUCKET; by default in the folders of agents.",
        metavar="URI",
    ),
]
LocalStorage = Annotated[
    bool | None,
    _option(
        "--use-local-storage/--no-use-local-storage",
        "Keep artifacts without a URI in the folders of agents, or in memory.",
        show_default="--use-local-storage",
    ),
]
A2a = Annotated[
    bool | None,
    _option("--a2a", "Serve agents with an agent.json by the A2A protocol at /a2a/APP."),
]
TaskUri = Annotated[
    str | None,
    _option(
        "--task-store-uri",
        "Where the tasks of A2A are kept; by default in this process.",
        metavar="URI",
    ),
]
OtelToCloud = Annotated[
    bool | None, _option("--otel-to-cloud", "Send OpenTelemetry's data to Google Cloud.")
]
TraceToCloud = Annotated[
    bool | None, _option("--trace-to-cloud", "Send traces to Google Cloud Trace.")
]
UrlPrefix = Annotated[
    str | None,
    _option(
        "--url-prefix",
        "The path at which a proxy serves the application, such as /adk.",
        metavar="PATH",
    ),
]
Plugins = Annotated[
    list[str] | None,
    _option(
        "--extra-plugins",
        "Plugins of every agent, such as my.module.MyPlugin: repeatable, or separated by commas.",
        metavar="NAMES",
    ),
]
ReloadAgents = Annotated[
    bool | None, _option("--reload-agents", "Load agents again when their files change.")
]
AutoCreate = Annotated[
    bool | None,
    _option("--auto-create-session", "Let a run create its session if there is none."),
]
MaxLlmCalls = Annotated[
    int | None,
    _option(
        "--max-llm-calls",
        "How often a run may call a model; 0 for no limit.",
        metavar="NUMBER",
        show_default="that of ADK",
    ),
]
TriggerSources = Annotated[
    str | None,
    _option(
        "--trigger-sources",
        "What may trigger agents at /apps/APP/trigger/…: pubsub, eventarc or both, separated by a "
        "comma.",
        metavar="NAMES",
    ),
]
TriggerAudience = Annotated[
    str | None,
    _option(
        "--trigger-oidc-audience",
        "A trigger must bear a token of Google's for this audience.",
        metavar="AUDIENCE",
    ),
]
TriggerAccounts = Annotated[
    str | None,
    _option(
        "--trigger-oidc-service-accounts",
        "Only these accounts may trigger, separated by commas.",
        metavar="EMAILS",
    ),
]
Avatar = Annotated[
    str | None,
    _option(
        "--avatar-config", "The avatar of live video: JSON, or a file of it.", metavar="JSON|FILE"
    ),
]
GeminiApp = Annotated[
    str | None,
    _option(
        "--gemini-enterprise-app-name",
        "The app that Gemini Enterprise calls at /api/reasoning_engine.",
        metavar="APP",
    ),
]
ExpressMode = Annotated[
    bool | None, _option("--express-mode", "Run that app by GOOGLE_API_KEY alone.")
]
EnableFeatures = Annotated[
    list[str] | None,
    _option(
        "--enable-features",
        "Switch on these features of ADK: repeatable, or separated by commas.",
        metavar="NAMES",
    ),
]
DisableFeatures = Annotated[
    list[str] | None,
    _option(
        "--disable-features",
        "Switch off these features of ADK: repeatable, or separated by commas.",
        metavar="NAMES",
    ),
]
Reload = Annotated[
    bool,
    _option(
        "--reload/--no-reload",
        "Do nothing, as in `adk api_server`: uvicorn cannot load such an application again. "
        "--reload-agents loads agents again.",
        hidden=True,
    ),
]
LogLevelOption = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        help="Log from this level on: DEBUG, INFO, WARNING, ERROR or CRITICAL.",
        show_default="INFO",
    ),
]


def joined(names: list[str] | None) -> str | None:
    """Return the values of a repeatable option, joined as its setting takes them."""
    return None if not names else ",".join(names)
