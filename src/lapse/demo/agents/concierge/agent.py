"""A concierge that shows all steps of an agent without a language model.

It is a real ADK agent with streaming, a tool and state; only its model is scripted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Final

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.tools.tool_context import ToolContext
from google.genai import types

_NOTICE: Final = "(I am a scripted demo, not a language model.)"
_PER_WORD: Final = timedelta(milliseconds=25)
"""The pause after each streamed word, which makes the streaming visible."""

_TABLE: Final = re.compile(r"\btable\b.*?\b(\d{1,2})\b", re.IGNORECASE | re.DOTALL)


def reserve_table(guests: int, tool_context: ToolContext) -> dict[str, int | str]:
    """Reserve a table and remember it in the session's state.

    Args:
        guests: how many people will come.
        tool_context: the context that ADK passes in.

    Returns:
        The number of the reservation and of the guests.
    """
    number = int(tool_context.state.get("reservations", 0)) + 1
    tool_context.state["reservations"] = number
    tool_context.state["guests"] = guests
    return {"reservation": number, "guests": guests, "status": "reserved"}


class ScriptedModel(BaseLlm):
    """Answers by rules: it books tables, repeats other messages, and says that it is a demo."""

    model: str = "scripted-demo"

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Yield a call of the tool or an answer; with `stream`, each word first, then the whole."""
        last = llm_request.contents[-1] if llm_request.contents else types.Content(parts=[])
        parts = last.parts or []
        results = [part.function_response for part in parts if part.function_response]
        said = " ".join(part.text for part in parts if part.text)
        wanted = _TABLE.search(said)
        if not results and wanted:
            call = types.Part.from_function_call(
                name=reserve_table.__name__, args={"guests": int(wanted[1])}
            )
            usage = types.GenerateContentResponseUsageMetadata(
                prompt_token_count=len(said.split()), candidates_token_count=1
            )
            yield LlmResponse(
                content=types.Content(role="model", parts=[call]), usage_metadata=usage
            )
            return
        if results:
            booked = results[-1].response or {}
            text = (
                f"Done: reservation {booked.get('reservation')} for {booked.get('guests')} guests. "
                f"{_NOTICE}"
            )
        else:
            text = f"You said: {said or 'nothing'}. Ask me for a table for four. {_NOTICE}"
        usage = types.GenerateContentResponseUsageMetadata(
            prompt_token_count=len(said.split()), candidates_token_count=len(text.split())
        )
        if stream:
            for word in re.findall(r"\S+\s*", text):
                yield LlmResponse(content=_spoken(word), partial=True)
                await asyncio.sleep(_PER_WORD.total_seconds())
        yield LlmResponse(content=_spoken(text), usage_metadata=usage)


def _spoken(text: str) -> types.Content:
    return types.Content(role="model", parts=[types.Part.from_text(text=text)])


root_agent = LlmAgent(
    name="concierge",
    description="A demo concierge that books tables. Scripted: no language model behind it.",
    model=ScriptedModel(),
    instruction="You are a concierge.",
    tools=[reserve_table],
)
