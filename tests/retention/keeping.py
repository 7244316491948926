"""Keepers of a policy with hooks and a memory service, and archived sessions for them."""

import asyncio
from contextlib import asynccontextmanager

from archiving import LATER
from test_retention_sweep import PURGE, TEXT

from backends import T0, create, key, message
from lapse.adk.purges import forgets_purged, memory_that_forgets, steps_before
from lapse.core.feed import Feed
from lapse.retention.forgetting import Forgetting
from lapse.retention.hooks import HookCalls
from lapse.retention.keeper import RetentionKeeper
from lapse.retention.policy import parse_policy
from lapse.retention.purging import Beside
from lapse.retention.settings import PurgedMemory

SECRET = "the words of the user"


class Keeping:
    """Keepers of a confirmed policy with hooks, on a store whose clock a test moves."""

    def __init__(self, store, path, hooks, choice=PurgedMemory.KEEP, memory=None):
        self._store, self._path, self.kinds = store, path / "policy.toml", []
        self._path.write_text(TEXT)
        steps = steps_before(hooks, choice, memory)
        self._remembered = memory_that_forgets(choice, memory)
        self._beside = Beside(hooks, lambda: steps, lambda: self._forgets(hooks, choice))
        self._feed = Feed()
        self._feed.subscribe(lambda change: self.kinds.append(change.kind))
        self.outcomes = {}

    def _forgets(self, hooks, choice):
        memory = self._remembered
        return memory is not None and forgets_purged(hooks, choice, memory)

    @asynccontextmanager
    async def at(self, now):
        """Provide a step of a keeper at a moment; its tasks end with the block."""
        database = self._store.at(now).database
        keeper = RetentionKeeper(database, self._feed, self._path, beside=self._beside)
        async with keeper.hooked.owned():
            await keeper.step()
            yield keeper.hooked
        self.outcomes = dict(keeper.hooked.calls.outcomes)

    async def step(self, now):
        """Take a step and wait for all that it has begun."""
        async with self.at(now) as hooked:
            while tasks := [*hooked._tasks, *hooked._tellers]:
                await asyncio.wait(tasks)
        await self.forget(now)

    async def forget(self, now):
        """Forget what is owed at a moment, if the memory service can."""
        if self._remembered is not None:
            calls = HookCalls()
            await Forgetting(self._store.at(now).database, self._remembered.forget, calls).step()
            self.outcomes |= calls.outcomes


async def keep(store, path, hooks, **more):
    """Return keepers of a policy that is confirmed."""
    await store.at(T0).confirm_retention(parse_policy(TEXT), by="op")
    return Keeping(store, path, hooks, **more)


async def archived(store, *names, event="m1"):
    """Have archived sessions with one event, whose id may name its session."""
    for name in names:
        revision = await create(store, name, state={"own": name, "app:shared": 1})
        await store.at(T0).append(key(name), message(event.format(name), SECRET), revision)
    done = await store.at(LATER).archive_sessions([key(name) for name in names], parse_policy(TEXT))
    assert done.value.archived == len(names)


async def exists(store, name="s1", now=PURGE):
    return await store.at(now).lifecycle(key(name)) is not None


async def remembered(service):
    found = await service.search_memory(app_name="app", user_id="ann", query="words")
    return [entry.content.parts[0].text for entry in found.memories]
