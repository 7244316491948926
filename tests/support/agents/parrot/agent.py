"""An agent that says what it hears, in words and in state; told to fail, it fails.

What it is taught it keeps in app state, for everybody; what it is told to note, in its user's.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.base_llm_connection import BaseLlmConnection
from google.adk.models.llm_response import LlmResponse
from google.genai import types


def words(text):
    return types.Content(role="model", parts=[types.Part(text=text)])


class Parrot(BaseLlm):
    model: str = "parrot"

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - ADK's
        parts = llm_request.contents[-1].parts if llm_request.contents else []
        heard = " ".join(part.text for part in parts if part.text)
        if heard.startswith("fail"):
            raise RuntimeError("the parrot choked")
        if heard.startswith("quote"):
            raise RuntimeError(f"the parrot choked on {heard!r}")
        if stream:
            for letter in heard:
                yield LlmResponse(content=words(letter), partial=True)
        yield LlmResponse(content=words(f"heard: {heard}"))

    @asynccontextmanager
    async def connect(self, llm_request):
        yield Line()


class Line(BaseLlmConnection):
    def __init__(self):
        self.heard = asyncio.Queue()

    async def send_history(self, history):
        pass

    async def send_content(self, content):
        await self.heard.put(content.parts[0].text)

    async def send_realtime(self, blob):
        pass

    async def receive(self):
        text = await self.heard.get()
        yield LlmResponse(content=words(f"heard: {text}"), turn_complete=True)

    async def close(self):
        pass


def remember(callback_context):
    state, content = callback_context.state, callback_context.user_content
    state["turns"] = state.get("turns", 0) + 1
    heard = (content.parts[0].text if content and content.parts else None) or ""
    if heard.startswith("teach"):
        state["app:lesson"] = heard
    if heard.startswith("note"):
        state["user:note"] = heard


root_agent = LlmAgent(name="parrot", model=Parrot(), before_agent_callback=remember)
