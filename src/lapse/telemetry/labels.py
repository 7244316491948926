"""Labels of metrics that have a bounded number of values."""

from __future__ import annotations

from typing import Final

MOST_APPS: Final = 50
"""Apps that have samples of their own. Anybody may create sessions for any app name."""

OTHER: Final = "other"


class AppLabels:
    """The value of the label `app`, one set for all metrics of a process.

    The first `most` apps that are seen have their own; all later ones are OTHER.
    """

    def __init__(self, most: int = MOST_APPS) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, app_name: str) -> str:
        """Return the label of an app."""
        if app_name in self._known:
            return app_name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(app_name)
        return app_name
