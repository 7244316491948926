"""A lobby and another service, and the processes that share them."""

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from backends import T0, Clocked
from lapse.adk.conversing import ConversingSessionService
from lapse.conversations.rules import Bounds
from odd_service import OddService
from parts import Intercepted
from postgres import database

BOUNDS = Bounds(timeout=timedelta(seconds=10), wait=timedelta(seconds=10))
SHORT = Bounds(timeout=timedelta(seconds=1), wait=timedelta(seconds=10))
IMPATIENT = Bounds(timeout=timedelta(seconds=10), wait=timedelta(milliseconds=50))
LEASE_OVER = BOUNDS.lease + timedelta(seconds=1)
"""By how much a test moves the clock so that every lease is over."""


class Unclosed(Intercepted):
    """A store that lives longer than the processes of a test. `around` is set by the test."""

    doing = None

    async def around(self, name, do):
        return await (do() if self.doing is None else self.doing(name, do))

    async def close(self):
        pass


class World:
    """A lobby, a service, and the time; `process()` makes what each process has of its own."""

    def __init__(self, store, inner):
        self.now = T0
        self.store = store
        self.odd = OddService(inner)
        self.inner = inner
        self._processes = []

    @property
    def rewrites_deleted(self):
        """Whether an append that meets a deletion leaves the deleted session in the service.

        ADK's Redis service looks whether a session exists, and then writes it whole.
        """
        return type(self.inner).__name__ == "RedisSessionService"

    def process(self, odd=None, **options):
        """Return the session service of a process that starts now; `odd` is the service it asks."""
        options.setdefault("bounds", BOUNDS)
        lobby = Unclosed(Clocked(self.store, lambda: self.now))
        service = ConversingSessionService(lobby, odd or self.odd, **options)
        service.hand_overs._clock = self.seconds
        service._beside.clear()  # a test says when what was left is finished
        service.lobby = lobby
        self._processes.append(service)
        return service

    def seconds(self):
        return (self.now - T0).total_seconds()

    def pass_time(self, span=LEASE_OVER):
        self.now += span

    async def close(self):
        for process in self._processes:
            await process.close()


@asynccontextmanager
async def other_service(kind, folder):
    """One of ADK's own services, empty."""
    from google.adk.sessions.database_session_service import DatabaseSessionService
    from google.adk.sessions.in_memory_session_service import InMemorySessionService
    from google.adk.sessions.sqlite_session_service import SqliteSessionService

    async with AsyncExitStack() as stack:
        match kind:
            case "memory":
                yield InMemorySessionService()
            case "sqlite":
                folder.mkdir(parents=True, exist_ok=True)
                url = f"sqlite+aiosqlite:///{folder}/conversations.db"
                yield await stack.enter_async_context(DatabaseSessionService(url))
            case "redis":
                from lapse.adk.conversations_uri import service_from_uri
                from valkey_server import redis_url

                made = service_from_uri(redis_url())
                yield made
                await made._redis_client.aclose()
            case "file":
                folder.mkdir(parents=True, exist_ok=True)
                yield SqliteSessionService(str(folder / "conversations.db"))
            case "vertex":
                from vertex_stand_in import vertex_service

                yield await stack.enter_async_context(vertex_service())
            case "mariadb":
                import mariadb_server

                url = stack.enter_context(mariadb_server.database())
                yield await stack.enter_async_context(DatabaseSessionService(url))
            case "postgres":
                url = stack.enter_context(database()).replace("postgresql", "postgresql+asyncpg", 1)
                yield await stack.enter_async_context(DatabaseSessionService(url))
