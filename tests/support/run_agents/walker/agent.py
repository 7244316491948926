"""An agent that takes the steps a message asks for: two partial events and a stored one each."""

from __future__ import annotations

import asyncio
from pathlib import Path

from google.adk.agents.base_agent import BaseAgent
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.genai import types

JOBS = set()


def words(text):
    return types.Content(role="model", parts=[types.Part(text=text)])


class Walker(BaseAgent):
    async def _run_async_impl(self, ctx):
        text = ctx.user_content.parts[0].text
        order, *details = text.split()
        async for event in getattr(self, f"_{order}", self._say)(ctx, *details):
            yield event

    def _event(self, ctx, text, **more):
        return Event(invocation_id=ctx.invocation_id, author=self.name, content=words(text), **more)

    async def _say(self, ctx, *details):
        yield self._event(ctx, " ".join(("heard", *details)))

    async def _walk(self, ctx, steps):
        for step in range(1, int(steps) + 1):
            for half in "ab":
                yield self._event(ctx, f"{step}{half}", partial=True)
            yield self._event(ctx, f"step {step}")

    async def _gated(self, ctx, steps, gates):
        """Take a step for each file in a folder: 1, 2, …"""
        for step in range(1, int(steps) + 1):
            yield self._event(ctx, f"{step}a", partial=True)
            while not (Path(gates) / str(step)).exists():  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)
            yield self._event(ctx, f"{step}b", partial=True)
            yield self._event(ctx, f"step {step}")

    async def _flood(self, ctx, events, size=1, gate="/"):
        """Emit so many events, four partial ones of a size before each that is stored."""
        while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - a file
            await asyncio.sleep(0.01)
        for number in range(1, int(events) + 1):
            if number % 5:
                yield self._event(ctx, "." * int(size), partial=True)
            else:
                yield self._event(ctx, f"step {number // 5}")

    async def _twins(self, ctx, steps):
        """Say things at one instant, and then at earlier ones."""
        for step in range(1, int(steps) + 1):
            yield self._event(ctx, f"step {step}", timestamp=1_800_000_000.0 - step // 2)

    async def _artifact(self, ctx):
        yield self._event(
            ctx, "drawn", actions=EventActions(artifact_delta={"a.png": 0}, state_delta={"n": 1})
        )
        yield self._event(ctx, "done")

    async def _leave(self, ctx, gate, *how):
        """Leave a job that says its word once there is a file, and writes what became of it."""

        async def job():
            while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - a file
                await asyncio.sleep(0.01)
            where = {"app_name": ctx.app_name, "user_id": ctx.user_id, "session_id": ctx.session.id}
            session = await ctx.session_service.get_session(**where)
            try:
                await ctx.session_service.append_event(session, self._event(ctx, "the job is done"))
                outcome = "stored"
            except Exception as fault:  # noqa: BLE001 - the test reads it
                outcome = type(fault).__name__
            Path(f"{gate}.outcome").write_text(outcome)  # noqa: ASYNC240 - a file

        JOBS.add(asyncio.create_task(job()))
        async for event in getattr(self, f"_{how[0]}")(ctx, *how[1:]):
            yield event

    async def _fail(self, ctx):
        yield self._event(ctx, "step 1")
        fault = "the walker fell"
        raise RuntimeError(fault)

    async def _never(self, ctx):
        yield self._event(ctx, "step 1")
        await asyncio.Event().wait()

    async def _stubborn(self, ctx):
        yield self._event(ctx, "step 1")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue


root_agent = Walker(name="walker")
