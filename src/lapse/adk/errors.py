"""ADK's errors that reach a client, and two errors that Lapse raises instead of ADK's."""

from __future__ import annotations

import re
from typing import Final

from google.adk.errors.input_validation_error import InputValidationError
from google.adk.errors.not_found_error import NotFoundError
from google.adk.errors.session_not_found_error import SessionNotFoundError

from lapse.adk.private.sessions import STALE, StaleSessionError
from lapse.core.errors import LapseError

__all__ = [
    "MODEL_FAULTS",
    "STALE",
    "InputValidationError",
    "NoSuchAgentError",
    "SessionNotFoundError",
    "StaleSessionError",
    "UnreadableBodyError",
    "without_paths",
]

MODEL_FAULTS: Final = (AttributeError, LookupError, TypeError, ValueError, NotFoundError)
"""Errors that validators of ADK's models raise for input they do not expect: an enum is looked up
with a dictionary, or a registry does not know a name. pydantic reports only ValueErrors as a failed
validation."""

_SENTENCE: Final = re.compile(r"(?<=\.)(?=\s)")
_ABSOLUTE_PATH: Final = re.compile(r"['\"](?:/|\\\\|[A-Za-z]:[\\/])")


class NoSuchAgentError(LapseError, ValueError):
    """ADK's loader has no agent of this name.

    It is a ValueError because ADK expects its loaders to raise one.
    """


class UnreadableBodyError(LapseError):
    """A validator of a request's body raised an unexpected error instead of refusing the body."""


def without_paths(text: str) -> str:
    """Return a text without the sentences that quote an absolute path.

    ADK's messages tell clients in which folders it looked for an agent. Clients must not learn
    where this server keeps its files.
    """
    kept = [part for part in _SENTENCE.split(text) if not _ABSOLUTE_PATH.search(part)]
    return "".join(kept).strip()
