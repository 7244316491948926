"""An agent that works as agents do: it calls a tool, which changes state and saves an artifact."""

from __future__ import annotations

import asyncio

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.tools.tool_context import ToolContext
from google.genai import types


class Worker(BaseLlm):
    model: str = "worker"

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - ADK's
        contents = llm_request.contents
        part = contents[-1].parts[0] if contents else types.Part(text="nobody")
        if part.text == "fail":
            raise RuntimeError("the model is away: größer 🙂")
        if part.text == "wait":
            await asyncio.Event().wait()
        if part.function_response is not None:
            said = types.Part(text="In Köln: 21 °C 🌦")
        elif "Wetter" in (part.text or ""):
            said = types.Part.from_function_call(name="weather", args={"city": "Köln", "days": 2})
        else:
            said = types.Part(text=f"heard: {part.text}")
        yield LlmResponse(content=types.Content(role="model", parts=[said]))


async def weather(city: str, days: int, tool_context: ToolContext) -> dict:
    """Return the weather of a city."""
    tool_context.state["last_city"] = city
    tool_context.state["user:cities"] = [city]
    tool_context.state["app:asked"] = days
    await tool_context.save_artifact("wetter für Köln.txt", types.Part(text="21 °C"))
    return {"temperature": 21.5, "sky": "🌦", "days": [None] * days}


root_agent = LlmAgent(name="worker", model=Worker(), tools=[weather])
