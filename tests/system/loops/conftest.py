"""What loops leave that are closed in the middle is collected in the test that closed them."""

import gc
from collections.abc import Iterator

import pytest
from opentelemetry import trace


@pytest.fixture(autouse=True)
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have set it up; OpenTelemetry logs each span that a closed loop cuts off."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)


@pytest.fixture(autouse=True)
def nothing_is_left_to_other_tests() -> Iterator[None]:
    yield
    gc.collect()
