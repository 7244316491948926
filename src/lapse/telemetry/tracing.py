"""OpenTelemetry spans; without tracing set up in the process (ADK sets it up), a no-op.

A span has the app of a transition and its outcome. It has at most 8 characters of a session id, and
never the text of an error.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change

if TYPE_CHECKING:
    from opentelemetry.trace import Span

P = ParamSpec("P")
T = TypeVar("T")


class _Notes:
    """Sets attributes of a span; a no-op without a span."""

    __slots__ = ("_span",)

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def note(self, **attributes: Any) -> None:
        """Set attributes of the span; each name gets the prefix `lapse.`."""
        if self._span is not None:
            for name, value in attributes.items():
                self._span.set_attribute(f"lapse.{name}", value)

    def note_changes(self, changes: Iterable[Change]) -> None:
        """Note the outcome of a transition: the kinds of its changes, and the cause if any."""
        if self._span is None:
            return
        done = list(changes)
        self.note(outcome=",".join(change.kind for change in done) or "unchanged")
        for change in done:
            if change.cause is not None:
                self.note(cause=str(change.cause))


_NOTHING = _Notes(None)


class _Untraced:
    """The block of a span that nobody reads."""

    def __enter__(self) -> _Notes:
        return _NOTHING

    def __exit__(self, *_: object) -> None:
        return None


_UNTRACED = _Untraced()


def span(name: str, key: SessionKey | None = None) -> AbstractContextManager[_Notes]:
    """Trace the block as a span `lapse.NAME`; of an error, only the type is noted."""
    # Tracing that is set up has imported the API; without it, nobody pays for the import. A
    # provider of `telemetry/provider.py` says whether its spans are read.
    api = sys.modules.get("opentelemetry.trace")
    if api is None or not getattr(api.get_tracer_provider(), "is_read", True):
        return _UNTRACED
    current = api.get_tracer("lapse").start_span(f"lapse.{name}")
    # Making a span current costs time, and OpenTelemetry logs an error if the event loop is closed
    # before the block ends.
    return _recorded(api, current, key) if current.is_recording() else _UNTRACED


@contextmanager
def _recorded(api: ModuleType, current: Span, key: SessionKey | None) -> Iterator[_Notes]:
    with api.use_span(
        current, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        notes = _Notes(current)
        if key is not None:
            notes.note(app=key.app_name, session=key.short)
        try:
            yield notes
        except Exception as error:
            notes.note(outcome=type(error).__name__)
            current.set_status(api.Status(api.StatusCode.ERROR, type(error).__name__))
            raise


def traced(
    name: str, noted: Callable[[T], Mapping[str, Any]]
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Trace each call of a coroutine function, and note `noted(result)` in its span."""

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with span(name) as notes:
                result = await function(*args, **kwargs)
                notes.note(**noted(result))
                return result

        return call

    return decorate
