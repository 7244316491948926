"""Labels of metrics, with a bounded number of values."""

from __future__ import annotations

from typing import Final

MOST_APPS: Final = 50
"""At most this many apps have samples of their own, because clients choose the names of apps."""

OTHER: Final = "other"
"""The label that all further apps share."""


class AppLabels:
    """The values of the label `app`, the same for all metrics of a process.

    The first `most` apps that are asked for have their own label; all later ones share OTHER.
    """

    def __init__(self, most: int = MOST_APPS) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, app_name: str) -> str:
        """Return the label of an app: its name, or OTHER."""
        if app_name in self._known:
            return app_name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(app_name)
        return app_name
