"""ADK's errors that reach a client, and the two that Lapse raises in their place."""

from __future__ import annotations

import re
from typing import Final

from google.adk.errors import StaleSessionError
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.errors.not_found_error import NotFoundError
from google.adk.errors.session_not_found_error import SessionNotFoundError

from lapse.core.errors import LapseError

__all__ = [
    "MODEL_FAULTS",
    "InputValidationError",
    "NoSuchAgentError",
    "SessionNotFoundError",
    "StaleSessionError",
    "UnreadableBodyError",
    "without_paths",
]

MODEL_FAULTS: Final = (AttributeError, LookupError, TypeError, ValueError, NotFoundError)
"""What validators of ADK's models raise at input they do not expect: an enum's look-up fails at a
dictionary, a registry does not know a name. pydantic makes refusals of ValueErrors alone."""

_SENTENCE: Final = re.compile(r"(?<=\.)(?=\s)")
_ABSOLUTE_PATH: Final = re.compile(r"['\"](?:/|\\\\|[A-Za-z]:[\\/])")


class NoSuchAgentError(LapseError, ValueError):
    """ADK's loader has no agent of this name; ADK expects a ValueError of a loader."""


class UnreadableBodyError(LapseError):
    """A validator of a request's body failed instead of refusing the body."""


def without_paths(text: str) -> str:
    """Return a text without the sentences that quote an absolute path.

    ADK tells clients where it has looked for an agent; where this server keeps its files is
    none of their business.
    """
    kept = [part for part in _SENTENCE.split(text) if not _ABSOLUTE_PATH.search(part)]
    return "".join(kept).strip()
