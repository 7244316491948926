"""Loads agents, and makes artifact services, as ADK's server would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.adk.agents.base_agent import BaseAgent
    from google.adk.apps.app import App
    from google.adk.artifacts.base_artifact_service import BaseArtifactService
    from google.adk.cli.utils.agent_loader import AgentLoader
    from google.adk.cli.utils.base_agent_loader import BaseAgentLoader


def serves_one_agent() -> bool:
    """Return whether ADK's server takes the folder of one agent, which it does since 2.1."""
    from google.adk.cli.utils import agent_loader

    return hasattr(agent_loader, "is_single_agent_directory")


def own_agents(loader: BaseAgentLoader) -> frozenset[str]:
    """Return the names of ADK's own agents (`__…`) that a loader may load, as ADK has set it.

    One of them reads and writes files of the server. ADK before 1.39.1, and from 2.0 to 2.4, lets
    everybody call them; for these versions the result is empty.
    """
    if not getattr(loader, "_allow_special_agents", False):
        return frozenset()
    from google.adk.cli.utils.agent_loader import SPECIAL_AGENTS_DIR

    modules = Path(SPECIAL_AGENTS_DIR).glob("*.py")
    return frozenset(f"__{module.stem}" for module in modules if module.stem != "__init__")


def artifact_service(
    folder: Path, uri: str | None, *, use_local_storage: bool
) -> BaseArtifactService:
    """Return ADK's artifact service for a URI.

    Without one, it keeps files in the folder of each agent, or in memory if it may not or cannot.

    Raises:
        ValueError: ADK has no artifact service for this URI.
    """
    from google.adk.cli.utils.service_factory import create_artifact_service_from_options

    return create_artifact_service_from_options(
        base_dir=folder,
        artifact_service_uri=uri,
        strict_uri=True,
        use_local_storage=use_local_storage,
    )


def agent_loader(folder: Path, *, web: bool) -> BaseAgentLoader:
    """Return the loader that ADK's server would choose, except for its error.

    For an agent that does not exist ADK's loader raises a ValueError that names folders of the
    server; this loader raises NoSuchAgentError, which names none. ADK's run routes answer 404 to
    either error, and its developer routes handle neither.

    It loads the agents that it lists, and ADK's own agents if ADK allows that. ADK's loader
    imports any module that has the name of a folder or a file among the agents.
    """
    from lapse.adk.errors import NoSuchAgentError, without_paths

    class Loader(_loader_of_server(web=web)):  # type: ignore[misc]
        def load_agent(self, agent_name: str) -> BaseAgent | App:
            if not agent_name.startswith("__") and agent_name not in self.list_agents():
                raise NoSuchAgentError(f"Agent not found: {agent_name!r}.")
            try:
                loaded: BaseAgent | App = super().load_agent(agent_name)
            except ValueError as error:
                raise NoSuchAgentError(without_paths(str(error))) from error
            return loaded

    loader: BaseAgentLoader = Loader(str(folder))
    return loader


def _loader_of_server(*, web: bool) -> type[AgentLoader]:
    from google.adk.cli.utils.agent_loader import AgentLoader

    if not web:
        return AgentLoader
    try:
        from google.adk.cli.utils._nested_agent_loader import NestedAgentLoader
    except ImportError:  # before 2.4
        return AgentLoader
    return NestedAgentLoader
