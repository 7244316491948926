"""An agent that speaks first, once there is a file that its session's state names."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.base_llm_connection import BaseLlmConnection
from google.adk.models.llm_response import LlmResponse
from google.genai import types

WELCOME = types.Content(role="model", parts=[types.Part(text="Welcome")])


async def wait(callback_context):
    """Tell by a file that the run is at work, and wait for the gate."""
    gate = Path(callback_context.state["gate"])
    gate.with_name(callback_context.session.id).touch()
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - a file
        await asyncio.sleep(0.02)


class Greeter(BaseLlm):
    model: str = "greeter"

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - ADK's
        yield LlmResponse(content=WELCOME)

    @asynccontextmanager
    async def connect(self, llm_request):
        yield Line()


class Line(BaseLlmConnection):
    """Says welcome, and no more."""

    async def send_history(self, history):
        pass

    async def send_content(self, content):
        pass

    async def send_realtime(self, blob):
        pass

    async def receive(self):
        yield LlmResponse(content=WELCOME, turn_complete=True)
        await asyncio.Event().wait()

    async def close(self):
        pass


root_agent = LlmAgent(name="greeter", model=Greeter(), before_agent_callback=wait)
