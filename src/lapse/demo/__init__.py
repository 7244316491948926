"""The bundled demo: a folder of ADK agents that needs no key and no network."""

from pathlib import Path
from typing import Final

AGENTS_DIR: Final = Path(__file__).parent / "agents"

APP_NAME: Final = "concierge"
"""The agent that the chat page talks to."""


def is_bundled(folder: Path) -> bool:
    """Return whether a folder of agents is a part of the installed package."""
    from lapse.demo import local_llm

    return folder in {AGENTS_DIR, local_llm.AGENTS_DIR}
