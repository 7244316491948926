"""The least an agent can do: one answer, no model, no tool."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from google.adk.agents import BaseAgent, InvocationContext
from google.adk.events.event import Event
from google.genai import types


class Echo(BaseAgent):
    """Answers every message with one word."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        noted = types.Content(role="model", parts=[types.Part(text="noted")])
        yield Event(author=self.name, invocation_id=ctx.invocation_id, content=noted)


root_agent = Echo(name="echo")
