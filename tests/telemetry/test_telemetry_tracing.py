"""Spans of transitions and sweeps, where tracing is set up, and none where it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.genai.types import Content, Part
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lapse import LapseSessionService
from lapse.sweep.sweeper import sweep_once
from lapse.telemetry.tracing import _NOTHING, span
from parts import store_with_parts

ID = "canary-session-of-ann"


@pytest.fixture
def spans(monkeypatch):
    """Set up tracing as ADK does, but for this test only."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield lambda: [
        (span.name, dict(span.attributes))
        for span in exporter.get_finished_spans()
        if span.name.startswith("lapse.")
    ]
    provider.shutdown()


@pytest.fixture
async def service():
    store = store_with_parts("sqlite:///:memory:")
    async with LapseSessionService(store, ttl=timedelta(microseconds=1)) as service:
        yield service


def words():
    return Event(author="user", content=Content(role="user", parts=[Part(text="secret")]))


async def test_transitions_and_sweeps_are_traced(service, spans):
    """Seen to fail with key.session_id in place of key.short."""
    session = await service.create_session(app_name="app", user_id="ann", session_id=ID)
    await sweep_once(service.store, service.feed)
    await service.append_event(session, words())
    await service.delete_session("app", "ann", ID)
    of = {"lapse.app": "app", "lapse.session": ID[:8]}
    assert spans() == [
        ("lapse.create", of | {"lapse.outcome": "created"}),
        ("lapse.sweep", {"lapse.expired": 1, "lapse.purged": 0, "lapse.kept": 0}),
        ("lapse.append", of | {"lapse.outcome": "resurrected,used", "lapse.cause": "message"}),
        ("lapse.delete", of | {"lapse.outcome": "deleted"}),
    ]
    assert ID not in str(spans())
    assert "secret" not in str(spans())


async def test_a_refused_transition_is_traced_by_the_type_of_its_error(service, spans):
    session = await service.create_session(app_name="app", user_id="ann", session_id=ID)
    await service.delete_session("app", "ann", ID)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, words())
    assert spans()[-1] == (
        "lapse.append",
        {"lapse.app": "app", "lapse.session": ID[:8], "lapse.outcome": "NoSuchSessionError"},
    )


async def test_the_span_of_a_transition_is_a_child_of_its_callers_span(service, spans):
    with trace.get_tracer("test").start_as_current_span("lapse.caller") as caller:
        await service.create_session(app_name="app", user_id="ann", session_id=ID)
        assert trace.get_current_span() is caller
    assert [name for name, _ in spans()] == ["lapse.create", "lapse.caller"]


async def test_without_a_provider_nothing_is_recorded(service, monkeypatch):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    with span("outside") as noted:
        assert noted is _NOTHING
        assert not trace.get_current_span().is_recording()
    await service.create_session(app_name="app", user_id="ann", session_id=ID)


def test_a_sweep_without_tracing_does_not_import_opentelemetry(tmp_path):
    program = (
        "import asyncio, json, sys\n"
        "from lapse.core.feed import Feed\n"
        "from lapse.store import store_from_url\n"
        "from lapse.sweep.sweeper import sweep_once\n"
        "asyncio.run(sweep_once(store_from_url('sqlite:///:memory:'), Feed()))\n"
        "print(json.dumps([name for name in sys.modules if 'opentelemetry' in name]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout) == []
