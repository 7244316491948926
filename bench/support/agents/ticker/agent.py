"""An agent that says what time it is, as often as it is asked to: `EVENTS PER_SECOND PADDING`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from google.adk.agents import BaseAgent, InvocationContext
from google.adk.events.event import Event
from google.genai import types


class Ticker(BaseAgent):
    """Answers with as many stored events as asked for, each with its time."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        text = (ctx.user_content.parts or [])[0].text if ctx.user_content else None
        events, per_second, padding = (int(part) for part in (text or "1 0 0").split())
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(events):
            if per_second:
                await asyncio.sleep(began + number / per_second - loop.time())
            said = f"@{time.time_ns()}@{'.' * padding}"
            noted = types.Content(role="model", parts=[types.Part(text=said)])
            yield Event(author=self.name, invocation_id=ctx.invocation_id, content=noted)


root_agent = Ticker(name="ticker")
