"""Finds agents in folders by ADK's rules, and knows which apps an application serves."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lapse.adk.private.loaders import own_agents
from lapse.adk.private.servers import server_of
from lapse.core.errors import InvalidValueError
from lapse.core.loops import PerLoop

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lapse.adk.run_sse import Runner

OWN_PREFIX: Final = "__"
"""The names of ADK's own agents begin with it; its developer UI builds agents with one of them."""

_LIST_TTL: Final = timedelta(seconds=1)
"""How old a list of agents may be that lacks an app; a new folder is served after that."""

_KNOWN_TTL: Final = timedelta(seconds=10)
"""How old a list may be that has the app."""

_REST: Final = 20
"""The pause after a listing is at least this many times as long as the listing took."""

_TIMEOUT: Final = timedelta(seconds=10)
"""How long listing the agents may take."""

_log = logging.getLogger(__name__)


def has_agents(folder: Path) -> bool:
    """Return whether ADK finds an agent: the folder itself, or a folder directly in it."""
    if is_agent(folder):
        return True
    return any(
        is_agent(child) or (child / "__init__.py").is_file()
        for child in folder.iterdir()
        if child.is_dir() and not child.name.startswith((".", "__"))
    )


def is_agent(folder: Path) -> bool:
    """Return whether a folder is itself an agent."""
    return (folder / "agent.py").is_file() or (folder / "root_agent.yaml").is_file()


class ServedApps:
    """The apps that an application serves: those of collections, and those that a loader lists.

    Args:
        named: collections of app names. Each check looks into them, so they may grow.
        listing: lists further apps, and may read folders for that. It runs in a thread, one call
            at a time, at most once a second and for at most a twentieth of the time. If it fails
            or takes longer than 10 s, the last list stays in use.
    """

    def __init__(
        self, *named: Container[str], listing: Callable[[], Iterable[str]] | None = None
    ) -> None:
        self._named = named
        self._listing = listing
        self._listed: frozenset[str] = frozenset()
        self._listed_at = -math.inf
        self._pause = timedelta(0)
        self._is_failing = False
        self._locks = PerLoop(asyncio.Lock)

    async def has(self, app_name: str) -> bool:
        """Return whether an app is served.

        If the list is stale, one caller makes it anew. Meanwhile callers that ask for an app of
        the stale list get their answer at once, and all others wait for the new list.

        Raises:
            Exception: what the first listing raised; it is repeated at the next check.
        """
        if any(app_name in names for names in self._named):
            return True
        if self._listing is None or app_name.startswith(OWN_PREFIX):
            # For such a name ADK's loader takes an agent of its own, not the listed folder.
            return False
        is_known = app_name in self._listed
        lock = self._locks.here()
        if is_known and (lock.locked() or not self._is_stale(_KNOWN_TTL)):
            return True
        async with lock:
            if self._is_stale(_KNOWN_TTL if is_known else _LIST_TTL):
                await self._refresh(self._listing)
        return app_name in self._listed

    def _is_stale(self, ttl: timedelta) -> bool:
        age = time.monotonic() - self._listed_at
        return age >= max(ttl, self._pause).total_seconds()

    async def _refresh(self, listing: Callable[[], Iterable[str]]) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT.total_seconds()):
                self._listed = frozenset(await asyncio.to_thread(listing))
        except Exception as error:
            if self._listed_at == -math.inf:
                raise
            if not self._is_failing:
                reason = str(error) or type(error).__name__
                _log.warning("the agents cannot be listed; the last list stays in use: %s", reason)
            self._is_failing = True
        else:
            self._is_failing = False
        self._listed_at = time.monotonic()
        self._pause = _REST * timedelta(seconds=self._listed_at - began)


def served_apps(
    app: FastAPI, *, runners: Iterable[Runner], apps: Container[str] | None
) -> ServedApps:
    """Return which apps an application serves.

    They are the apps of its runners, those in `apps`, and, if it has ADK's routes, those that
    ADK's loader lists and the agents of ADK's own that the loader may load.

    Raises:
        InvalidValueError: the application has none of the three, or `apps` is a string.
    """
    server = server_of(app)
    loader = None if server is None else server.agent_loader
    names = {runner.app_name for runner in runners}
    if isinstance(apps, str) or not isinstance(apps, Container | None):
        example = apps if isinstance(apps, str) else "shop"
        raise InvalidValueError("apps", f"must be a collection of names, such as [{example!r}]")
    if apps is None and loader is None and not names:
        raise InvalidValueError(
            "apps",
            "must name the apps that this application serves, such as mount(app, service, "
            "apps=['shop']): it has neither ADK's routes nor `runners`",
        )
    if loader is None:
        return ServedApps(names, apps or ())
    return ServedApps(names, apps or (), own_agents(loader), listing=loader.list_agents)
