"""Spans of transitions and sweeps, where tracing is set up, and none where it is not."""

import json
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.genai.types import Content, Part
from httpx import ASGITransport, AsyncClient
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from lapse import LapseSessionService
from lapse.sweep.sweeper import sweep_once
from lapse.telemetry import provider as providers
from lapse.telemetry.provider import is_read, set_quiet_provider
from lapse.telemetry.tracing import _NOTHING, span
from lapse.web.middleware.telemetry import UnreadTelemetryMiddleware
from parts import store_with_parts
from serving import eventually, serving

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


TRACED_AGENT = """
from google.adk.agents.base_agent import BaseAgent
from google.adk.events.event import Event
from google.genai.types import Content, Part
from opentelemetry import trace
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

trace.get_tracer_provider().add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"SPAN {span.name}\\n"))
)


class Agent(BaseAgent):
    async def _run_async_impl(self, context):
        said = Content(role="model", parts=[Part(text="hello")])
        yield Event(author=self.name, invocation_id=context.invocation_id, content=said)


root_agent = Agent(name="traced")
"""


def test_a_server_makes_spans_from_the_first_span_processor_on(tmp_path):
    """Seen to fail without `is_read = True`."""
    folder = tmp_path / "agents" / "traced"
    folder.mkdir(parents=True)
    (folder / "agent.py").write_text(TRACED_AGENT)
    (folder / "__init__.py").write_text("from . import agent\n")
    with serving(tmp_path, str(folder.parent)) as server:
        sessions = "/apps/traced/users/ann/sessions"
        assert server.client.post(sessions, json={"sessionId": ID}).status_code == 200
        assert "SPAN" not in server.log
        # ADK loads the agent, which adds a processor, while the run is answered.
        body = {"appName": "traced", "userId": "ann", "sessionId": ID}
        body["newMessage"] = {"role": "user", "parts": [{"text": "hi"}]}
        assert server.client.post("/run", json=body).status_code == 200
        assert "SPAN lapse.append" in server.log
        assert server.client.get(f"{sessions}/{ID}").status_code == 200
        eventually(lambda: "SPAN GET /apps/{app_name}" in server.log)


@pytest.fixture
def quiet(monkeypatch):
    """Set the provider that `lapse serve` sets, for this test only."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    # Other tests of this process may have set one.
    logs = SimpleNamespace(get_logger_provider=lambda: None)
    monkeypatch.setattr("lapse.telemetry.provider._logs", logs)
    monkeypatch.setattr("lapse.telemetry.provider._others", providers._Others())
    set_quiet_provider()
    provider = trace.get_tracer_provider()
    yield provider
    provider.shutdown()


async def asked(app):
    """Ask an application for `/there` as `lapse serve` does; return which telemetry it had."""
    transport = ASGITransport(UnreadTelemetryMiddleware(app))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get("/there")).json()


async def test_fastapi_prepares_no_telemetry_while_nobody_reads_it(quiet):
    """Seen to fail without `scope["fastapi.telemetry"] = None`."""
    app = FastAPI()

    @app.get("/there")
    def there(request: Request) -> bool:
        return request.scope.get("fastapi.telemetry") is not None

    assert await asked(app) is False
    quiet.add_span_processor(SimpleSpanProcessor(exporter := InMemorySpanExporter()))
    assert await asked(app) is True
    assert "GET /there" in [each.name for each in exporter.get_finished_spans()]


@pytest.mark.usefixtures("quiet")
def test_a_provider_of_metrics_is_noticed_a_second_later(monkeypatch):
    """Seen to fail where the first look is kept for good."""
    now, found = [0.0], [None]
    monkeypatch.setattr(providers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    metrics = SimpleNamespace(get_meter_provider=lambda: found[0])
    monkeypatch.setattr(providers, "metrics", metrics)
    assert not is_read()
    found[0] = MeterProvider()
    now[0] += 1.1
    assert is_read()
    found[0].shutdown()


async def test_a_tracer_from_before_the_first_processor_makes_spans_after_it(quiet):
    """Seen to fail with a no-op tracer for those who ask before the first processor."""
    tracer = trace.get_tracer("library")
    with tracer.start_as_current_span("unread") as unread:
        assert not unread.is_recording()
    assert not tracer.start_span("unread").is_recording()
    with span("unread") as noted:
        assert noted is _NOTHING
    quiet.add_span_processor(SimpleSpanProcessor(exporter := InMemorySpanExporter()))
    with tracer.start_as_current_span("read"), span("read"):
        tracer.start_span("inner").end()
    names = [each.name for each in exporter.get_finished_spans()]
    assert names == ["inner", "lapse.read", "read"]


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_X"])
def test_where_adk_sets_a_provider_of_its_own_none_is_set(monkeypatch, variable):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    set_quiet_provider()
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def test_a_provider_that_is_set_stays(spans):
    before = trace.get_tracer_provider()
    set_quiet_provider()
    assert trace.get_tracer_provider() is before
