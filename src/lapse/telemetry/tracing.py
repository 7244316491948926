"""Spans of OpenTelemetry, where somebody has set up tracing (ADK does); else nothing at all.

A span says which app a change was about and what came of it. It holds at most the first characters
of a session id, and no error's text.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Change

if TYPE_CHECKING:
    from opentelemetry.trace import Span

P = ParamSpec("P")
T = TypeVar("T")


class _Notes:
    """What is noted in a span, or nowhere."""

    __slots__ = ("_span",)

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def note(self, **attributes: Any) -> None:
        """Note attributes, each named `lapse.…`."""
        if self._span is not None:
            for name, value in attributes.items():
                self._span.set_attribute(f"lapse.{name}", value)

    def note_changes(self, changes: Iterable[Change]) -> None:
        """Note what came of a transition: the kinds of its changes, and the cause if it has one."""
        if self._span is None:
            return
        done = list(changes)
        self.note(outcome=",".join(change.kind for change in done) or "unchanged")
        for change in done:
            if change.cause is not None:
                self.note(cause=str(change.cause))


_NOTHING = _Notes(None)


@contextmanager
def span(name: str, key: SessionKey | None = None) -> Iterator[_Notes]:
    """Trace what is done inside as `lapse.NAME`; an error is noted by its type."""
    # Whoever has set up tracing has imported it: a command that nobody traces never does.
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        yield _NOTHING
        return
    with api.get_tracer("lapse").start_as_current_span(
        f"lapse.{name}", record_exception=False, set_status_on_exception=False
    ) as current:
        notes = _Notes(current) if current.is_recording() else _NOTHING
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
    """Trace each call of a function, and note what is of interest in its result."""

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with span(name) as notes:
                result = await function(*args, **kwargs)
                notes.note(**noted(result))
                return result

        return call

    return decorate
