"""A server in this process whose store fails where a test says so, with the agent `walker`."""

import asyncio
from contextlib import contextmanager

from google.adk.runners import Runner

from lapse import LapseSessionService, Settings, mount
from lapse.adk.private.servers import app_of_runners
from lapse.core.errors import OutcomeUnknownError, StoreUnavailableError
from parts import Intercepted, store_with_parts
from run_agents.walker.agent import Walker
from served import Served


class FaultyStore(Intercepted):
    """A store whose operations fail when they are armed, once each.

    `calls` are the names of all operations that were done. `slow` are operations that take long,
    each with the event that ends it.
    """

    def __init__(self, database):
        super().__init__(database)
        self._faults = {}
        self.slow = {}
        self._barriers = {}
        self.calls = []

    def fail(self, name, *, done, nth=1):
        """Fail the n-th call of an operation; with `done` after it was done, and nobody knows."""
        self._faults[name] = (nth, done)

    def together(self, name, number):
        """Have the next calls of an operation begin together, when there are so many."""
        self._barriers[name] = asyncio.Barrier(number)

    async def around(self, name, do):
        self.calls.append(name)
        if name in self.slow:
            await self.slow[name].wait()
        if (barrier := self._barriers.get(name)) is not None:
            await barrier.wait()
            self._barriers.pop(name, None)
        if name not in self._faults:
            return await do()
        nth, done = self._faults.pop(name)
        if nth > 1:
            self._faults[name] = (nth - 1, done)
            return await do()
        if done:
            await do()
            raise OutcomeUnknownError("the store: its answer was lost")
        raise StoreUnavailableError("the store: it is away")


@contextmanager
def walking(url="sqlite:///:memory:", runner=None, **settings):
    """Serve the agent `walker`; the server has its `store`.

    `runner` takes the service and returns the runner of another agent, for the same app.
    """
    store = FaultyStore(store_with_parts(url))
    service = LapseSessionService(store)
    made = (runner or _runner)(service)
    app = app_of_runners([made], service)
    mount(app, service, Settings(**settings), runners=[made])
    with Served(app) as server:
        server.store = store
        yield server


def _runner(service):
    return Runner(app_name="walker", agent=Walker(name="walker"), session_service=service)
