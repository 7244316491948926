"""Sessions as users make them: over HTTP, with metadata, state, uploads, tools and odd names.

What reads sessions (commands, pages, APIs) is tested on these. Sessions that a test writes into the
store by hand have what the test's author thought of.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from adk_builders import message_event, state_event
from backends import BACKENDS
from lapse import Lapse, LapseSessionService, Settings
from lapse.core.documents import StateDelta
from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey, check_new_key
from parts import store_with_parts
from served import Served
from serving import eventually

AGENTS = Path(__file__).with_name("lived_agents")
APP = "worker"
GREETER = "greeter"
"""The same agent, in an app in which only the user's message makes a session used."""

TTL = timedelta(minutes=30)
USER = "zoë o'neil@example.com"
CROWD = "много"
"""A user with as many waiting sessions as the quota allows."""

TOKEN = "operators-token-0123456789"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
METADATA = {"page": "/café?q=ü&r=%2F", "segment": "trial", "deep": {"a": [1, None, "🙂 <b>"]}}
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}

STATUSES = {
    "waits": "waiting",
    "größe 100% & mehr": "waiting",
    "has-a-file": "waiting",
    "came-back": "waiting",
    "said-something": "used",
    "used-a-tool": "used",
    "came-back-and-spoke": "used",
    "legacy": "used",
    "gone": "expired",
    "was-expired-by-an-operator": "expired",
    "its-run-failed": "used",
    "its-run-was-cancelled": "used",
    "created-twice-with-a-key": "used",
    "greeted": "waiting",
    "greeted-and-gone": "expired",
    "greeted-and-answered": "used",
    "crowd-1": "expired",
    "crowd-2": "waiting",
    "of-stock-adk": "used",
    "empty-of-stock-adk": "orphan",
}
"""The sessions that there are, with their status.

`was-deleted` and `was-purged` are there no more. The app `shop` has sessions of other days: a TTL
was decided from some, and a brake holds back the purge of others.
"""

_SETTINGS: Final = {
    "used_by": f"anyone,{GREETER}=user",
    "waiting_per_user": 8,
    "ttl_policy": "adaptive",
    "brake_sessions": 1,
    "brake_share": 0.01,
}


def key_of(name: str) -> SessionKey:
    """Return the key of a session by its name in STATUSES."""
    app = GREETER if name.startswith("greeted") else APP
    return SessionKey(app, CROWD if name.startswith("crowd") else USER, name)


async def created(
    store: Any, key: SessionKey, *, ttl: timedelta = TTL, metadata: Any = METADATA
) -> None:
    """Create one session as programs do: by the service, with metadata and state.

    A key that the service refuses is that of an older session, and is written into the store.
    """
    state = {"draft": "größer 🙂", "deep": {"a": [1.5, None]}}
    try:
        check_new_key(key)
    except InvalidValueError:
        await store.create(key, state=StateDelta(session=state), ttl=ttl, metadata=metadata)
        return
    minutes = ttl / timedelta(minutes=1)
    service = LapseSessionService(store)
    await service.create_session(
        **key._asdict(), ttl_minutes=minutes, metadata=metadata, state=state
    )


async def said(store: Any, key: SessionKey) -> None:
    """Say something in a session, as the user."""
    service = LapseSessionService(store)
    session = await service.get_session(**key._asdict())
    await service.append_event(session, message_event("Grüß Gott 🙂"))


async def spoken(store: Any, key: SessionKey) -> None:
    """Create one session in which the user has said something."""
    await created(store, key)
    await said(store, key)


@dataclass
class Lived:
    """A running server that has been used, and its store's URL."""

    url: str
    served: Served
    elsewhere: str | None = None

    @property
    def client(self) -> httpx.Client:
        return self.served.client

    def path(self, name: str = "") -> str:
        """Return the path of a session, or without a name that of the user's sessions."""
        app, user, _ = key_of(name)
        base = f"/apps/{app}/users/{quote(user, safe='')}/sessions"
        return f"{base}/{quote(name, safe='')}" if name else base

    def query(self, name: str) -> str:
        """Return how the operators' pages name a session."""
        app, user, _ = key_of(name)
        return str(httpx.QueryParams({"app": app, "user": user, "id": name}))

    # What users do.

    def create(self, name: str, key: str | None = None, **body: Any) -> None:
        """Create a session; `key` is an idempotency key."""
        sessions = self.path(name).rpartition("/")[0]
        body = {"sessionId": name, **body}
        self._done(self.client.post(sessions, json=body, headers=_keyed(key)))

    def say(self, name: str, text: str, key: str | None = None) -> None:
        message = {"role": "user", "parts": [{"text": text}]}
        self._run(name, key, newMessage=message)

    def be_greeted(self, name: str) -> None:
        """Have the agent speak first."""
        self._run(name, stateDelta={"page": "/café"})

    def _run(self, name: str, key: str | None = None, **body: Any) -> None:
        app, user, _ = key_of(name)
        body |= {"appName": app, "userId": user, "sessionId": name}
        self._done(self.client.post("/run", json=body, headers=_keyed(key)))

    def begin(self, name: str, text: str) -> str:
        """Begin a detached run, and return its path."""
        path = f"{self.path(name)}/run"
        return f"{path}/{self._done(self.client.post(path, json={'message': text}))['runId']}"

    def upload(self, name: str, filename: str) -> None:
        body = {"filename": filename, "artifact": {"text": "größer als nichts"}}
        self._done(self.client.post(f"{self.path(name)}/artifacts", json=body))

    def patch(self, name: str, **delta: Any) -> None:
        self._done(self.client.patch(self.path(name), json={"stateDelta": delta}))

    def ask(self, name: str, act: str, body: Any = None) -> Any:
        """Ask a lifecycle route: `extend`, `resurrect`, or with a body PATCH."""
        if body is not None:
            return self._done(self.client.patch(f"{self.path(name)}/lifecycle", json=body))
        return self._done(self.client.post(f"{self.path(name)}/lifecycle/{act}"))

    def expire_by_operator(self, name: str) -> None:
        path = f"/lapse/api/session/expire?{self.query(name)}"
        self._done(self.client.post(path, headers=OPERATOR))

    def record(self, name: str) -> Any:
        return self._done(self.client.get(f"{self.path(name)}/lifecycle"))

    def expires_soon(self, name: str, **body: Any) -> None:
        self.create(name, options={"ttlMinutes": 0.001, "metadata": METADATA}, **body)
        eventually(lambda: self.record(name)["status"] == "expired")

    @staticmethod
    def _done(answer: httpx.Response) -> Any:
        assert answer.status_code < 300, answer.text
        return answer.json()

    def live(self) -> None:
        """Make every session of STATUSES."""
        options = {"options": {"ttlMinutes": 45, "metadata": METADATA}}
        state = {
            "draft": "größer 🙂",
            "deep": {"a": [1.5, None]},
            "user:name": "Zoë",
            "app:open": True,
        }
        self.create("waits", state=state, **options)
        self.patch("waits", theme="dark", draft=None)
        self.ask("waits", "", {"metadata": {"rated": 5}, "ttlMinutes": 50})
        self.create("größe 100% & mehr", **options)
        self.ask("größe 100% & mehr", "extend")
        self.create("has-a-file")
        self.upload("has-a-file", "bild von mir.txt")
        self.create("said-something", **options)
        for text in ("Grüß Gott", "and again 🙂", "x" * 300):
            self.say("said-something", text)
        self.create("used-a-tool", state=state)
        self.say("used-a-tool", "Wie wird das Wetter?")
        self.upload("used-a-tool", "user:photo.png")
        for name in ("came-back-and-spoke", "gone"):
            self.expires_soon(name, state=state)
        self.create("came-back", state=state, **options)
        self.expire_by_operator("came-back")
        self.ask("came-back", "resurrect")
        self.say("came-back-and-spoke", "still here?")
        self.begin("legacy", "hello")
        self._live_with_runs()
        self._live_as_a_crowd()
        self._be_greeted(options)
        self.create("was-deleted", **options)
        self._done(self.client.delete(self.path("was-deleted")))
        self.create("was-expired-by-an-operator", **options)
        self.expire_by_operator("was-expired-by-an-operator")
        asyncio.run(self._live_on_stock_adk())
        eventually(lambda: self.record("legacy")["status"] == "used")
        gone = self.client.post(f"{self.path('was-purged')}/lifecycle/resurrect")
        assert gone.status_code == 404, gone.text

    def _live_with_runs(self) -> None:
        """Have a run that fails, one that is cancelled, and requests that are sent twice."""
        for name, text in (("its-run-failed", "fail"), ("its-run-was-cancelled", "wait")):
            self.create(name)
            run = self.begin(name, text)
            if text == "wait":
                assert self.client.delete(run).status_code in {200, 202}
            eventually(lambda run=run: self.client.get(run).json()["status"] != "running")
        for _ in range(2):
            self.create("created-twice-with-a-key", key="k-1")
            self.say("created-twice-with-a-key", "Grüß Gott", key="k-2")

    def _live_as_a_crowd(self) -> None:
        """Create sessions until the oldest one expires because the user has too many."""
        for number in count(1):
            self.create(f"crowd-{number}")
            if self.record("crowd-1")["status"] == "expired":
                return

    def _be_greeted(self, options: Any) -> None:
        """Have the agent speak first in sessions that wait on for the user."""
        for name in ("greeted", "greeted-and-gone", "greeted-and-answered"):
            self.create(name, **options)
            self.be_greeted(name)
        self.expire_by_operator("greeted-and-gone")
        self.say("greeted-and-answered", "hello")

    async def _live_on_stock_adk(self) -> None:
        from google.adk.sessions.database_session_service import DatabaseSessionService

        scheme, _, rest = self.url.partition("://")
        async with DatabaseSessionService(f"{DRIVERS[scheme]}://{rest}") as stock:
            who = {"app_name": APP, "user_id": USER}
            spoken = await stock.create_session(**who, session_id="of-stock-adk", state={"k": "ü"})
            await stock.append_event(spoken, message_event("Grüß Gott"))
            await stock.append_event(spoken, message_event("Servus", author="worker"))
            empty = await stock.create_session(**who, session_id="empty-of-stock-adk")
            await stock.append_event(empty, state_event({"theme": "dark"}))


def _keyed(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


async def _other_days(url: str) -> None:
    """Leave what the service leaves behind in days: observations, a purged session, a backlog."""
    store = store_with_parts(url)
    born = datetime.now(UTC).replace(hour=3) - timedelta(days=9)
    await created(store.at(born), key_of("was-purged"))
    await store.at(born + timedelta(hours=1)).expire_due(10)
    await store.at(born + timedelta(days=4)).purge_due(10)
    for number in range(5):
        await created(store.at(born), SessionKey("shop", "ancient", f"a{number}"))
    await store.at(born + timedelta(hours=1)).expire_due(10)
    born += timedelta(days=6)
    for number in range(40):
        key = SessionKey("shop", f"u{number}", f"s{number}")
        await created(store.at(born), key, ttl=timedelta(days=1))
        await said(store.at(born + timedelta(hours=2)), key)
    await store.close()


ELSEWHERE: Final = {
    "sqlite": None,
    "postgres": None,
    "sqlite-elsewhere-memory": "memory://",
    "postgres-elsewhere-database": "sqlite+aiosqlite:///{folder}/conversations.db",
}
"""Where used sessions live, by the store that the lobby is on; None: in the store."""


@contextmanager
def lived_on(world: str, folder: Path) -> Iterator[Lived]:
    """Serve as `lived` does, on a store of its own; the worlds are those of ELSEWHERE."""
    (backend,) = (one for one in BACKENDS if one.name == world.partition("-")[0])
    uri = ELSEWHERE[world]
    elsewhere = None if uri is None else uri.format(folder=folder)
    with backend.empty(folder) as url, lived(url, folder, elsewhere=elsewhere) as found:
        yield found


@contextmanager
def lived(url: str, folder: Path, *, elsewhere: str | None = None) -> Iterator[Lived]:
    """Serve on a store, with sessions as users make them, until the block ends."""
    asyncio.run(_other_days(url))
    agents = folder / "agents"
    for app in (APP, GREETER):
        shutil.copytree(AGENTS / APP, agents / app)
    secret = SecretStr(TOKEN)
    made = Settings(store_url=url, admin_token=secret, conversations_uri=elsewhere, **_SETTINGS)
    with Served(Lapse(settings=made).app(agents, port=0)) as served:
        life = Lived(url, served, elsewhere)
        life.live()
        yield life
