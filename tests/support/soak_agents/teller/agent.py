"""An agent that says how many tasks its process has; told to leak, it leaks one of each thing."""

import asyncio
import os

from google.adk.agents import BaseAgent
from google.adk.events.event import Event
from google.genai.types import Content, Part

LEAKED = []


class Teller(BaseAgent):
    async def _run_async_impl(self, ctx):
        heard = ctx.user_content.parts[0].text
        if heard == "leak":
            LEAKED.append(
                (
                    bytearray(256 * 1024),
                    os.open(os.devnull, os.O_RDONLY),
                    asyncio.create_task(asyncio.Event().wait()),
                )
            )
        said = Content(role="model", parts=[Part(text=str(len(asyncio.all_tasks())))])
        yield Event(author=self.name, invocation_id=ctx.invocation_id, content=said)


root_agent = Teller(name="teller")
