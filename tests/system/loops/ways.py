"""The ways in which synchronous programs call a service, and what a process holds after them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.genai import types

from postgres import await_connections

APP, USER = "talk", "ada"

Work = Callable[[], Coroutine[Any, Any, Any]]


def by_asyncio_run(work: Work) -> Any:
    """Run on a loop of its own, as scripts, Flask and Streamlit do."""
    return asyncio.run(work())


def by_a_loop_that_is_only_closed(work: Work) -> Any:
    """Run on a loop that nobody tidies up before it is closed."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


def by_a_thread_with_a_loop(work: Work) -> Any:
    """Run on a loop in a thread of its own, as ADK's synchronous `Runner.run` does."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work()).result()


WAYS = (by_asyncio_run, by_a_loop_that_is_only_closed, by_a_thread_with_a_loop)


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: threads, and open files and sockets."""

    threads: int
    files: int


def none_are_left(url: str) -> bool:
    """Return whether the server has no connection of Lapse's any more; it takes it a moment."""
    return await_connections(url, 0)


def held() -> Held:
    """Return what this process holds, after what nobody needs was collected."""
    gc.collect()
    descriptors = Path("/proc/self/fd")
    files = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    return Held(threading.active_count(), files)


def words(text: str, role: str = "user") -> types.Content:
    return types.Content(role=role, parts=[types.Part(text=text)])


class Echo(BaseLlm):
    """Repeats the message."""

    model: str = "echo"

    async def generate_content_async(self, llm_request, stream=False):  # noqa: FBT002 - ADK's
        yield LlmResponse(content=words(llm_request.contents[-1].parts[-1].text, "model"))


def runner_on(service: Any) -> Runner:
    agent = LlmAgent(name="echo", model=Echo())
    return Runner(app_name=APP, agent=agent, session_service=service)


def says(runner: Runner, session_id: str, text: str) -> list[str]:
    """Say something by ADK's synchronous `Runner.run`, and return the answers."""
    events = runner.run(user_id=USER, session_id=session_id, new_message=words(text))
    return [event.content.parts[0].text for event in events if event.content]
