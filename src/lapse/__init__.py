"""Lapse: the session life-cycle layer for agents built with Google's Agent Development Kit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from lapse.adk.purges import SaveToMemory
    from lapse.adk.server_options import ServerOptions
    from lapse.adk.service import LapseSessionService
    from lapse.app import Lapse
    from lapse.artifacts.sweeper import ArtifactSweeper
    from lapse.auth import Authentication, Authenticator, HeaderAuthenticator, TokenAuthenticator
    from lapse.auth.options import HeaderOptions, JwtOptions, NotAuthenticatedError
    from lapse.auth.principals import Principal, Role, current_principal
    from lapse.core.errors import LapseError
    from lapse.core.feed import Feed
    from lapse.core.keys import SessionKey
    from lapse.core.lifecycle import Change, Expiries, Lifecycle, Rules, Status
    from lapse.dashboard.options import OperatorOptions
    from lapse.hosted import mount, session_service
    from lapse.limits.protocol import bounded
    from lapse.limits.rules import Bounds
    from lapse.notices.rules import WatchOptions
    from lapse.quotas.rules import Quotas
    from lapse.retention.hooks import RetentionHooks
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
    "Authenticator",
    "Bounds",
    "BrakeOptions",
    "Change",
    "ConnectionOptions",
    "Expiries",
    "Feed",
    "HeaderAuthenticator",
    "HeaderOptions",
    "JwtOptions",
    "Lapse",
    "LapseError",
    "LapseSessionService",
    "Lifecycle",
    "NotAuthenticatedError",
    "OperatorOptions",
    "Policy",
    "Principal",
    "Quotas",
    "RetentionHooks",
    "Role",
    "Rules",
    "RunLimits",
    "SaveToMemory",
    "ServerOptions",
    "SessionKey",
    "Settings",
    "Status",
    "Targets",
    "TokenAuthenticator",
    "TtlPolicy",
    "WatchOptions",
    "bounded",
    "current_principal",
    "mount",
    "session_service",
    "store_from_url",
]

_HOMES = {
    "ArtifactSweeper": "lapse.artifacts.sweeper",
    "Authentication": "lapse.auth",
    "Authenticator": "lapse.auth",
    "Bounds": "lapse.limits.rules",
    "BrakeOptions": "lapse.sweep.rules",
    "Change": "lapse.core.lifecycle",
    "ConnectionOptions": "lapse.store.options",
    "Expiries": "lapse.core.lifecycle",
    "Feed": "lapse.core.feed",
    "HeaderAuthenticator": "lapse.auth",
    "HeaderOptions": "lapse.auth.options",
    "JwtOptions": "lapse.auth.options",
    "Lapse": "lapse.app",
    "LapseError": "lapse.core.errors",
    "LapseSessionService": "lapse.adk.service",
    "Lifecycle": "lapse.core.lifecycle",
    "NotAuthenticatedError": "lapse.auth.options",
    "OperatorOptions": "lapse.dashboard.options",
    "Policy": "lapse.ttl.decision",
    "Principal": "lapse.auth.principals",
    "Quotas": "lapse.quotas.rules",
    "RetentionHooks": "lapse.retention.hooks",
    "Role": "lapse.auth.principals",
    "Rules": "lapse.core.lifecycle",
    "RunLimits": "lapse.runs.rules",
    "SaveToMemory": "lapse.adk.purges",
    "ServerOptions": "lapse.adk.server_options",
    "SessionKey": "lapse.core.keys",
    "Settings": "lapse.settings",
    "Status": "lapse.core.lifecycle",
    "Targets": "lapse.ttl.decision",
    "TokenAuthenticator": "lapse.auth",
    "TtlPolicy": "lapse.ttl.policy",
    "WatchOptions": "lapse.notices.rules",
    "bounded": "lapse.limits.protocol",
    "current_principal": "lapse.auth.principals",
    "mount": "lapse.hosted",
    "session_service": "lapse.hosted",
    "store_from_url": "lapse.store",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lapse")
    # Late, because ADK takes seconds to import and not every command needs it.
    if name not in _HOMES:
        raise AttributeError(f"module 'lapse' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
