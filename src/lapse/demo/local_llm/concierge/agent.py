"""The concierge on SmolLM2-135M: an ADK agent whose model answers on this machine.

ADK uses it like any other server of OpenAI's protocol.
"""

from __future__ import annotations

from typing import Final

from google.adk.agents import LlmAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.integrations.openai import OpenAILlm
from google.adk.models.llm_request import LlmRequest

from lapse.demo.local_llm.model import MODEL, server

_LONGEST_ANSWER: Final = 160
"""The most tokens of an answer."""

_LONGEST_PROMPT: Final = 6000
"""The most characters of the conversation that are sent to the model."""


def _shorten(callback_context: CallbackContext, llm_request: LlmRequest) -> None:  # noqa: ARG001 - ADK's names
    """Remove the oldest parts of a conversation that is longer than _LONGEST_PROMPT."""
    room, kept = _LONGEST_PROMPT, 0
    for content in reversed(llm_request.contents):
        room -= sum(len(part.text or "") for part in content.parts or [])
        if room < 0 and kept:
            break
        kept += 1
    llm_request.contents = llm_request.contents[-kept:]


root_agent = LlmAgent(
    name="concierge",
    description="A demo concierge with a small language model that runs on this machine.",
    model=OpenAILlm(
        model=MODEL,
        base_url=f"{server().listening_address}/v1",
        api_key="none",
        max_tokens=_LONGEST_ANSWER,
    ),
    instruction="You are a friendly concierge. Answer in one or two short sentences.",
    before_model_callback=_shorten,
)
