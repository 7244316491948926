"""The command line, called in this process: as a user calls it, and thirty times as fast."""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from dataclasses import dataclass
from datetime import timedelta

import pytest

from backends import store_at
from lapse.cli import main as cli
from lapse.core.keys import SessionKey
from lived_sessions import created
from logging_state import logging_restored
from parts import store_with_parts


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Caller:
    """Runs commands on one store, and reads the store directly."""

    def __init__(self, monkeypatch, capsys, url):
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.url = url

    def __call__(self, *arguments, **settings) -> Done:
        """Run a command on the store."""
        return self.bare(*arguments, LAPSE_STORE_URL=self.url, **settings)

    def bare(self, *arguments, **settings) -> Done:
        self._capsys.readouterr()
        with self._monkeypatch.context() as patch, warnings.catch_warnings(), logging_restored():
            patch.setattr(sys, "argv", ["lapse", *arguments])
            for name, value in settings.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                cli.main()
        said = self._capsys.readouterr()
        return Done(int(end.value.code or 0), said.out, said.err)

    def do(self, work):
        """Do something with the store, and return the result."""

        async def with_store():
            store = store_with_parts(self.url)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(with_store())

    def create(self, *ids, app="app", user="ann", now=None, ttl=timedelta(minutes=30)):
        async def work(store):
            for session_id in ids:
                key = SessionKey(app, user, session_id)
                await created(store_at(store, now), key, ttl=ttl)

        self.do(work)

    def acts(self):
        acts = self.do(lambda store: store.acts(newest=10))
        return [(act.by, act.action, act.session) for act in acts]
