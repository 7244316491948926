"""A tracer provider whose spans cost nothing until somebody reads them.

ADK's server sets up OpenTelemetry also where no span processor exists: each request then makes a
handful of spans that nobody reads. This provider makes none until `add_span_processor` is called,
by ADK, by an agent or by an instrumentation, and all of them from then on.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

_EXPORTERS: Final = "OTEL_EXPORTER_OTLP_"
"""The variables with which ADK sets up a provider of its own begin like this."""

_LOOK_AGAIN: Final = timedelta(seconds=1)

_NO_SPANS: Final = trace.NoOpTracer()


class QuietTracerProvider(TracerProvider):
    """The SDK's provider, which makes no spans before its first span processor."""

    is_read: bool = False
    """Whether a span processor exists."""

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add a processor; every tracer makes spans from now on."""
        super().add_span_processor(span_processor)
        self.is_read = True

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        """Return a tracer that asks for each span anew, because libraries keep their tracers."""
        return _QuietTracer(self, super().get_tracer(*args, **kwargs))


class _QuietTracer(trace.Tracer):
    __slots__ = ("_provider", "_tracer")

    def __init__(self, provider: QuietTracerProvider, tracer: trace.Tracer) -> None:
        self._provider = provider
        self._tracer = tracer

    @property
    def _present(self) -> trace.Tracer:
        return self._tracer if self._provider.is_read else _NO_SPANS

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        return self._present.start_span(*args, **kwargs)

    def start_as_current_span(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> AbstractContextManager[trace.Span]:
        return self._present.start_as_current_span(*args, **kwargs)


def set_quiet_provider() -> None:
    """Set a `QuietTracerProvider` for the process; a no-op if one is set or will be.

    ADK sets its own if exporters are named in the environment, and OpenTelemetry takes only one.
    """
    if any(name.startswith(_EXPORTERS) for name in os.environ):
        return
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(QuietTracerProvider())


class _Others:
    """Knows whether metrics or logs are read. It looks once a second: a look takes microseconds."""

    def __init__(self) -> None:
        self._until = -math.inf
        self._are_read = False

    def are_read(self) -> bool:
        """Return whether they are read, or were a second ago."""
        now = time.monotonic()
        if now > self._until:
            self._until = now + _LOOK_AGAIN.total_seconds()
            self._are_read = isinstance(metrics.get_meter_provider(), MeterProvider) or isinstance(
                _logs.get_logger_provider(), LoggerProvider
            )
        return self._are_read


_others: Final = _Others()


def is_read() -> bool:
    """Return whether anybody may read this process's spans, metrics or logs of OpenTelemetry.

    It tells of a span processor at once, and of a provider of metrics or logs within a second.
    """
    tracing = trace.get_tracer_provider()
    return not isinstance(tracing, QuietTracerProvider) or tracing.is_read or _others.are_read()
