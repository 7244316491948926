"""Which version of ADK is installed, and what does not hold on an older one."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

import pytest
from packaging.version import Version

ADK: Final = Version(version("google-adk"))


def is_before(first: str) -> bool:
    """Return whether the installed ADK is older than a version."""
    return Version(first) > ADK


def skip_what_adk_lacks(items: Iterable[pytest.Item]) -> None:
    """Skip each test with a mark `since_adk` of a newer version than the installed one."""
    for item in items:
        for mark in item.iter_markers("since_adk"):
            first, reason = mark.args
            if is_before(first):
                item.add_marker(pytest.mark.skip(f"ADK {first}: {reason}"))


def since_adk(first: str, reason: str) -> pytest.MarkDecorator:
    """Mark what holds since a version of ADK: the reason says what older ones lack."""
    return pytest.mark.since_adk(first, reason)
