"""Makes ADK's server with its options, and says in a sentence what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lapse.adk.agents import is_agent
from lapse.adk.private.loaders import serves_one_agent
from lapse.adk.private.servers import server_arguments
from lapse.adk.private.versions import needs_newer
from lapse.adk.server_options import ServerOptions
from lapse.core.errors import InvalidValueError, LapseError

if TYPE_CHECKING:
    from google.genai.types import AvatarConfig

_MADE_HERE: Final = {
    "artifact_service_uri": "Lapse makes the artifact service itself, to delete what is left over",
    "enable_features": "they are switched on before ADK's server is made",
    "disable_features": "they are switched off before ADK's server is made",
}
"""Options that are not passed on, with the reason."""

_EXTRAS: Final = {
    "a2a": "google-adk[a2a]",
    "opentelemetry": "google-adk[gcp]",
    "google.cloud": "google-adk[gcp]",
    "vertexai": "google-adk[gcp]",
    "agentplatform": "google-adk[gcp]",
}
"""What to install for a module of another package that an option needs."""


def adk_arguments(options: ServerOptions) -> dict[str, Any]:
    """Return the options as `get_fast_api_app` takes them.

    Raises:
        InvalidValueError: the avatar cannot be read, or an option needs a newer ADK.
    """
    arguments = {
        one.name: getattr(options, one.name)
        for one in fields(options)
        if one.name not in _MADE_HERE
    }
    for name in ("extra_plugins", "trigger_sources", "trigger_oidc_service_accounts"):
        arguments[name] = list(arguments[name]) or None
    arguments["avatar_config"] = _avatar(options.avatar_config)
    missing = arguments.keys() - server_arguments()
    for name in _asked(options):
        if name in missing:
            raise InvalidValueError(name, needs_newer(name))
    return {name: value for name, value in arguments.items() if name not in missing}


def check_folder(folder: Path) -> None:
    """Refuse a folder that ADK's server cannot serve.

    Raises:
        InvalidValueError: it is an agent, and a newer ADK would serve it.
    """
    if is_agent(folder) and not serves_one_agent():
        what = "a folder that is itself an agent"
        reason = f"{what} {needs_newer(what)}; give its parent folder"
        raise InvalidValueError("agents_dir", reason)


def switch_features(options: ServerOptions) -> None:
    """Switch features of ADK on and off, in the whole process.

    Raises:
        InvalidValueError: ADK has no such feature.
    """
    from google.adk.features import FeatureName, override_feature_enabled

    known = {str(feature.value): feature for feature in FeatureName}
    for field, is_on in (("enable_features", True), ("disable_features", False)):
        for name in getattr(options, field):
            if name not in known:
                reason = f"ADK has no feature {name!r:.60}; use one of {', '.join(sorted(known))}"
                raise InvalidValueError(field, reason)
            override_feature_enabled(known[name], is_on)


def check_plugins(options: ServerOptions) -> None:
    """Load the plugins of every agent once, from the path on which agents are loaded.

    ADK loads them with the first run, and runs without those that it cannot load.

    Raises:
        InvalidValueError: one cannot be loaded, or is no plugin.
    """
    from importlib import import_module

    from google.adk.plugins.base_plugin import BasePlugin

    for dotted in options.extra_plugins:
        module, _, name = dotted.rpartition(".")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise InvalidValueError(
                "extra_plugins",
                f"{dotted!r:.120} cannot be loaded; name it as MODULE.NAME: {error}",
            ) from error
        kind = found if isinstance(found, type) else type(found)
        if not issubclass(kind, BasePlugin):
            raise InvalidValueError(
                "extra_plugins", f"{dotted!r:.120} is no plugin of ADK's; name a BasePlugin"
            )


@contextmanager
def plain_errors(options: ServerOptions) -> Iterator[None]:
    """Turn ADK's errors about its options inside the block into one sentence.

    Raises:
        InvalidValueError: an option names what ADK does not have, or needs a missing package.
    """
    from click import ClickException

    try:
        yield
    except ClickException as error:
        # ADK makes one of the ValueErrors of a memory service and an artifact service.
        if isinstance(error.__cause__, LapseError):
            raise error.__cause__ from None
        raise InvalidValueError("memory_service_uri", error.message) from error
    except ModuleNotFoundError as error:
        missing = error.name or ""
        package = next((_EXTRAS[name] for name in _EXTRAS if missing.startswith(name)), None)
        if package is None:
            raise  # a module of the agents lacks it
        asked = ", ".join(_asked(options))
        raise InvalidValueError(
            asked or "ADK's server",
            f"needs a package that is not installed ({missing}): pip install '{package}'",
        ) from error


def _asked(options: ServerOptions) -> Iterator[str]:
    """Return the options that differ from their defaults."""
    usual = ServerOptions()
    for one in fields(options):
        if getattr(options, one.name) != getattr(usual, one.name):
            yield one.name


def _avatar(given: str | None) -> AvatarConfig | None:
    if given is None:
        return None
    from google.genai.types import AvatarConfig

    try:
        document = (
            given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")
        )
        return AvatarConfig.model_validate_json(document)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidValueError(
            "avatar_config", f"must be JSON, or a file of it: {reason}"
        ) from error
