"""A mounted application on a real socket, with the operators' pages open to a token."""

import asyncio
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from lapse import LapseSessionService, Settings, mount
from lapse.auth.principals import Principal, Role, acting
from lapse.core.keys import SessionKey
from lived_sessions import created, said
from parts import store_with_parts
from served import Served

TOKEN = "operators-token-0123456789"
TTL = timedelta(minutes=30)
FORM = re.compile(r'name="form_token" value="([^"]+)"')


class KnownByHeader:
    """An authenticator for tests: a header names the principal."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", ()))
        role, _, name = headers.get(b"x-principal", b"").decode().partition(" ")
        with acting(Principal(name, Role(role)) if name else None):
            await self._app(scope, receive, send)


@dataclass
class Operated:
    """A served application, its store, and clients of its pages."""

    served: Served
    service: LapseSessionService
    clients: list[httpx.Client] = field(default_factory=list)

    @property
    def url(self):
        return self.served.url

    def do(self, work):
        """Do something to the store, on the loop of the server."""
        return asyncio.run_coroutine_threadsafe(work, self.served.loop).result(30)

    @property
    def store(self):
        return self.service.store

    def create(self, session, *, app="shop", user="ann", ago=timedelta(minutes=5), ttl=TTL):
        """Create a session; in the past, by the store's own clock."""
        key = SessionKey(app, user, session)
        now = datetime.now(UTC) - ago
        self.do(created(self.store.at(now), key, ttl=ttl))
        return key

    def use(self, session, **how):
        """Create a session with a message."""
        key = self.create(session, **how)
        self.do(said(self.store, key))
        return key

    def expired(self, session, **how):
        """Create a session that has expired."""
        key = self.create(session, **how)
        self.do(self.store.expire(key))
        return key

    def status(self, key):
        record = self.do(self.store.lifecycle(key))
        return record and str(record.status)

    def newest_act(self):
        (act,) = self.do(self.store.acts(newest=1))
        return act

    def logged_in(self, name="ann"):
        """Return a client that is logged in, and the token of its forms."""
        client = self.client()
        client.post("/lapse/login", data={"token": TOKEN, "name": name}, headers=self.own_origin())
        return client, FORM.search(client.get("/lapse/sweep").text)[1]

    def client(self):
        """Return a client that shares no cookies."""
        self.clients.append(httpx.Client(base_url=self.url, timeout=30, trust_env=False))
        return self.clients[-1]

    def own_origin(self):
        return {"Origin": self.served.origin}


def query(key):
    return urlencode({"app": key.app_name, "user": key.user_id, "id": key.session_id})


@contextmanager
def operated(store_url, **options):
    """Serve an application on a store, without a sweeper."""
    service = LapseSessionService(store_with_parts(store_url))
    app = FastAPI()
    settings = Settings(
        sweeper=False, admin_token=SecretStr(TOKEN), store_url="somewhere", **options
    )
    mount(app, service, settings, apps=["app"])
    app.add_middleware(KnownByHeader)
    with Served(app) as served:
        found = Operated(served, service)
        yield found
        for client in found.clients:
            client.close()
