"""A replica in a thread of its own, and a browser's side of its streams."""

import asyncio
import json
from contextlib import AbstractContextManager
from datetime import timedelta

import httpx
from fastapi import FastAPI
from google.adk.events.event import Event
from google.genai import types

from lapse import LapseSessionService, Settings, mount
from lapse.adk.conversations_uri import service_from_uri
from lapse.adk.conversing import ConversingSessionService
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Rules
from lapse.store import store_from_url
from parts import Intercepted, options_for
from served import Served

MINUTES = 30
NEVER = timedelta(hours=1)
"""A heartbeat that no test waits for: what arrives was announced."""

SOON = timedelta(milliseconds=200)


def key(name, user="ann"):
    return SessionKey("app", user, name)


class Watched(Intercepted):
    """A database that counts reads of watched sessions, and can fail in them or announce nothing.

    Attributes:
        reads: how often watched sessions were read.
        fault: what each such read raises; None: it reads.
        is_silent: whether nothing is told to other replicas.
    """

    def __init__(self, database):
        super().__init__(database)
        self.reads = 0
        self.fault = None
        self.is_silent = False

    async def around(self, name, do):
        if name == "records":
            self.reads += 1
            if self.fault is not None:
                raise self.fault
        return await do()

    async def notify(self, channel, texts):
        if not self.is_silent:
            await self._database.notify(channel, texts)


class Replica(Served):
    """A FastAPI application with Lapse mounted, as a replica among others."""

    def __init__(
        self, url, *, heartbeat=NEVER, sweep=True, rules=Rules(), elsewhere=None, **options
    ):
        self.store = Watched(store_from_url(url, rules, options_for(url)))
        if elsewhere is None:
            self.service = LapseSessionService(self.store)
        else:
            self.service = ConversingSessionService(self.store, service_from_uri(elsewhere))
        app = FastAPI()
        settings = Settings(sweeper=sweep, heartbeat=heartbeat, **options)
        mount(app, self.service, settings, apps=["app"])
        super().__init__(app)

    def do(self, work):
        """Run a call of the service on the replica's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work(self.service), self.loop).result(30)

    def create(self, name, *, minutes=MINUTES, user="ann"):
        return self.do(
            lambda service: service.create_session(
                app_name="app", user_id=user, session_id=name, ttl_minutes=minutes
            )
        )

    def say(self, name):
        """Append a message, as a run does."""

        async def append(service):
            with service.reviving(key(name)):
                session = await service.get_session(app_name="app", user_id="ann", session_id=name)
            words = types.Content(role="user", parts=[types.Part(text="hi")])
            await service.append_event(session, Event(author="user", content=words))

        self.do(append)

    def path(self, name, user="ann"):
        return f"/apps/app/users/{user}/sessions/{name}/lifecycle"

    def post(self, name, what):
        answer = self.client.post(f"{self.path(name)}/{what}")
        assert answer.status_code == 200, answer.text

    def watch(self, name, *, user="ann", last=None):
        return Stream(self, f"{self.path(name, user)}/events", last)


class Stream(AbstractContextManager):
    """An open stream; `next_event()` waits for its next event."""

    def __init__(self, replica, path, last):
        headers = {} if last is None else {"Last-Event-ID": last}
        self._client = httpx.Client(base_url=replica.url, timeout=20, trust_env=False)
        request = self._client.build_request("GET", path, headers=headers)
        self.response = self._client.send(request, stream=True)
        self._lines = self.response.iter_lines()
        self.last = last
        self.beats = 0

    def next_event(self):
        """Return the next event's name and data; None when the stream has ended."""
        fields = {}
        for line in self._lines:
            if line.startswith(":"):
                self.beats += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                self.last = fields["id"]
                return fields["event"], json.loads(fields["data"])
            else:
                fields = {}
        return None

    def names(self, count):
        """Return the names of the next events."""
        return [self.next_event()[0] for _ in range(count)]

    def beat(self):
        """Return after the next heartbeat; there is no event before it."""
        for line in self._lines:
            assert not line.startswith("event"), line
            if line.startswith(":"):
                return
        raise AssertionError("the stream has ended")

    def __exit__(self, *_):
        self.response.close()
        self._client.close()
