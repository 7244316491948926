"""Lapse as a service of ADK's registry, for `adk web` and `adk api_server`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lapse.adk.service import LapseSessionService
from lapse.auth.options import AuthMode
from lapse.core.errors import InvalidValueError
from lapse.core.feed import Feed
from lapse.settings import load_settings
from lapse.store import store_from_url
from lapse.telemetry.logs import log_change
from lapse.ttl.policy import TtlPolicy


def session_service(uri: str = "", **_options: Any) -> LapseSessionService:
    """Make the session service that a URI of ADK's `--session_service_uri` names.

    `lapse:sqlite:///chats.db` is a store's URL behind the scheme `lapse:`; with nothing behind
    it the settings name the store. The service sweeps for itself. What else ADK passes to a
    factory, such as `agents_dir`, has no bearing on it.

    Raises:
        InvalidValueError: no store has such a URL; or the settings ask for authentication, which
            ADK's server has no place for.
        SettingsError: the settings are wrong.
    """
    settings = load_settings()
    if settings.auth is not AuthMode.NONE:
        raise InvalidValueError(
            "LAPSE_AUTH",
            f"is {str(settings.auth)!r}, and ADK's own server would let everybody in all the "
            "same; use `lapse serve`, or leave it out here",
        )
    url = uri.removeprefix("lapse:").removeprefix("//")
    # ADK keeps its artifact service to itself: nobody here could delete what the outbox names.
    rules = replace(settings.rules, artifacts=False)
    store = store_from_url(url or settings.store_url, rules, settings.connection)
    feed = Feed()
    feed.subscribe(log_change)
    return LapseSessionService(
        store,
        feed=feed,
        sweep=settings.sweeper,
        policy=TtlPolicy(store, feed, settings.targets, settings.ttl_policy),
        quotas=settings.quotas,
        brakes=settings.brakes,
    )
