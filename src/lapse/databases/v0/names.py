"""The classes that a pickled `actions` may name: the closed list. None of them is ever imported."""

from __future__ import annotations

from typing import Final

_OPENAPI: Final = "fastapi.openapi.models"
_CREDENTIAL: Final = "google.adk.auth.auth_credential"
_SCHEMES: Final = "google.adk.auth.auth_schemes"
_ACTIONS: Final = "google.adk.events.event_actions"
_GENAI: Final = "google.genai.types"


def _named(module: str, names: str) -> frozenset[tuple[str, str]]:
    return frozenset((module, name) for name in names.split())


ACTIONS: Final = (_ACTIONS, "EventActions")
"""The class that ADK pickles; everything else stands inside it."""

MODELS: Final = frozenset().union(
    _named(
        _OPENAPI,
        "APIKey HTTPBase HTTPBearer OAuth2 OAuthFlow OAuthFlowAuthorizationCode "
        "OAuthFlowClientCredentials OAuthFlowImplicit OAuthFlowPassword OAuthFlows OpenIdConnect "
        "SecurityBase",
    ),
    _named(
        _CREDENTIAL,
        "AuthCredential HttpAuth HttpCredentials OAuth2Auth ServiceAccount "
        "ServiceAccountCredential",
    ),
    _named(_SCHEMES, "CustomAuthScheme ExtendedOAuth2 OpenIdConnectWithConfig"),
    _named("google.adk.auth.auth_tool", "AuthConfig"),
    _named(_ACTIONS, "EventActions EventCompaction"),
    _named("google.adk.events.ui_widget", "UiWidget"),
    _named("google.adk.tools.tool_confirmation", "ToolConfirmation"),
    _named(
        _GENAI,
        "Blob CodeExecutionResult Content ExecutableCode FileData FunctionCall FunctionResponse "
        "FunctionResponseBlob FunctionResponseFileData FunctionResponsePart Part "
        "PartMediaResolution PartialArg SpeechMetadata ToolCall ToolResponse Transcription "
        "VideoMetadata WordInfo",
    ),
)
"""The pydantic models that `EventActions` can hold, in every version of ADK with schema 0."""

ENUMS: Final = frozenset().union(
    _named(_OPENAPI, "APIKeyIn SecuritySchemeType"),
    _named(_CREDENTIAL, "AuthCredentialTypes"),
    _named(_SCHEMES, "OAuthGrantType"),
    _named(
        _GENAI,
        "FunctionResponseScheduling Language MediaProcessing Outcome PartMediaResolutionLevel "
        "ToolType",
    ),
)
"""The enumerations of those models; a member becomes its value."""

TYPES: Final = _named("builtins", "bool bytes dict float int list set str tuple")
"""The types that a `defaultdict` may name for its missing values; no value is ever made."""
