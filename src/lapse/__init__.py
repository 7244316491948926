"""Lapse: the session life-cycle layer for agents built with Google's Agent Development Kit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lapse.adk.service import LapseSessionService
    from lapse.app import Lapse, mount, session_service
    from lapse.artifacts.sweeper import ArtifactSweeper
    from lapse.auth import Authentication
    from lapse.core.errors import LapseError
    from lapse.core.feed import Feed
    from lapse.core.keys import SessionKey
    from lapse.core.lifecycle import Change, Lifecycle, Rules, Status
    from lapse.dashboard.options import OperatorOptions
    from lapse.limits.rules import Bounds
    from lapse.notices.rules import WatchOptions
    from lapse.quotas.rules import Quotas
    from lapse.runs.rules import RunLimits
    from lapse.settings import Settings
    from lapse.store import store_from_url
    from lapse.store.options import ConnectionOptions
    from lapse.sweep.rules import BrakeOptions
    from lapse.ttl.decision import Policy, Targets
    from lapse.ttl.policy import TtlPolicy

__all__ = [
    "ArtifactSweeper",
    "Authentication",
    "Bounds",
    "BrakeOptions",
    "Change",
    "ConnectionOptions",
    "Feed",
    "Lapse",
    "LapseError",
    "LapseSessionService",
    "Lifecycle",
    "OperatorOptions",
    "Policy",
    "Quotas",
    "Rules",
    "RunLimits",
    "SessionKey",
    "Settings",
    "Status",
    "Targets",
    "TtlPolicy",
    "WatchOptions",
    "mount",
    "session_service",
    "store_from_url",
]

_HOMES = {
    "ArtifactSweeper": "lapse.artifacts.sweeper",
    "Authentication": "lapse.auth",
    "Bounds": "lapse.limits.rules",
    "BrakeOptions": "lapse.sweep.rules",
    "Change": "lapse.core.lifecycle",
    "ConnectionOptions": "lapse.store.options",
    "Feed": "lapse.core.feed",
    "Lapse": "lapse.app",
    "LapseError": "lapse.core.errors",
    "LapseSessionService": "lapse.adk.service",
    "Lifecycle": "lapse.core.lifecycle",
    "OperatorOptions": "lapse.dashboard.options",
    "Policy": "lapse.ttl.decision",
    "Quotas": "lapse.quotas.rules",
    "Rules": "lapse.core.lifecycle",
    "RunLimits": "lapse.runs.rules",
    "SessionKey": "lapse.core.keys",
    "Settings": "lapse.settings",
    "Status": "lapse.core.lifecycle",
    "Targets": "lapse.ttl.decision",
    "TtlPolicy": "lapse.ttl.policy",
    "WatchOptions": "lapse.notices.rules",
    "mount": "lapse.app",
    "session_service": "lapse.app",
    "store_from_url": "lapse.store",
}


def __getattr__(name: str) -> Any:
    # Late, because ADK takes seconds to import and not every command needs it.
    if name not in _HOMES:
        raise AttributeError(f"module 'lapse' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
