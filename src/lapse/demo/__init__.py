"""The bundled demo: an ADK agent and a chat page that need no API key and no network."""

from pathlib import Path
from typing import Final

AGENTS_DIR: Final = Path(__file__).parent / "agents"

APP_NAME: Final = "concierge"
"""The app whose agent the chat page talks to."""


def is_bundled(folder: Path) -> bool:
    """Return whether a folder of agents is one of this package's demos."""
    from lapse.demo import local_llm

    return folder in {AGENTS_DIR, local_llm.AGENTS_DIR}
