"""The bundled demo: a folder of ADK agents that needs no key and no network."""

from pathlib import Path
from typing import Final

AGENTS_DIR: Final = Path(__file__).parent

APP_NAME: Final = "concierge"
"""The agent that the chat page talks to."""
