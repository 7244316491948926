"""Since which version ADK has what Lapse's users can ask for, and where older ones keep it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Final

OPENAI: Final = "google.adk.integrations.openai"

SINCE: Final[Mapping[str, str]] = {
    # Options of `get_fast_api_app`.
    "task_store_uri": "1.34",
    "trigger_sources": "1.29",
    "trigger_oidc_audience": "2.9",
    "trigger_oidc_service_accounts": "2.9",
    "avatar_config": "2.11",
    "max_llm_calls": "2.11",
    "gemini_enterprise_app_name": "2.2",
    "express_mode": "2.2",
    # Others.
    "a folder that is itself an agent": "2.1",
    # Modules.
    "google.adk.integrations.firestore": "1.31",
    "google.adk.integrations.redis": "2.7",
    "google.adk.integrations.mongodb": "2.13",
    OPENAI: "2.10",
}
"""The first version of ADK that has an option, a module or a way of being used."""


def needs_newer(name: str) -> str:
    """Return in words which version of ADK has what a name of SINCE names."""
    return f"needs google-adk {SINCE[name]} or newer; {version('google-adk')} is installed"


def is_there(module: str) -> bool:
    """Return whether ADK has a module; the packages around it are loaded."""
    return find_spec(module) is not None


@cache
def server_module() -> ModuleType:
    """Return the module of ADK's routes and of the middleware around them; it loads the server."""
    return import_module(server_module_name())


@cache
def server_module_name() -> str:
    """Return the name of that module: since 2.0 `api_server`, before `adk_web_server`."""
    name = "google.adk.cli.api_server"
    return name if is_there(name) else "google.adk.cli.adk_web_server"


@cache
def is_compared() -> bool:
    """Return whether ADK's version is one of COMPARED."""
    return version("google-adk") in COMPARED


COMPARED: Final = frozenset({"2.13.0"})
"""The versions of ADK for which `web/lean.py` was compared with ADK's own way."""
