"""Stores that are broken on purpose, so that what looks for a fault is seen to find it."""

import time
from contextlib import contextmanager
from dataclasses import replace

from lapse.core.errors import StoreUnavailableError
from lapse.store.postgres import call
from lapse.store.sessions import Sessions
from lapse.store.sqlite import lanes, transaction


def answer_early():
    """Have SQLite's writer answer its callers before it commits."""

    def run_together(lane, connection, jobs):
        lane._start(connection, flushed=True)
        batch = lanes.Batch(connection)
        outcomes = [lane._run_one(batch, job) for job in jobs]
        batch.write()
        lanes._answer(outcomes)
        time.sleep(0.005)  # what a disk takes
        connection.execute("COMMIT")
        return []

    lanes.Lane._run_together = run_together


def commit_by_halves():
    """Have SQLite commit a first message before its session counts as used."""
    run = transaction.Transaction.run

    def halves(self, name, **params):
        if name == "settle_used":
            self.batch.connection.execute("COMMIT")
            time.sleep(0.3)
            self.batch.connection.execute("BEGIN IMMEDIATE")
        return run(self, name, **params)

    transaction.Transaction.run = halves


def swallow_failures():
    """Have SQLite's writer answer as if a commit that failed had not."""

    def run_together(lane, connection, jobs):
        lane._start(connection, flushed=True)
        batch = lanes.Batch(connection)
        outcomes = [lane._run_one(batch, job) for job in jobs]
        try:
            batch.write()
            connection.execute("COMMIT")
        except lanes.sqlite3.Error:
            lanes._roll_back(connection)
        return outcomes

    lanes.Lane._run_together = run_together


def miss_what_cannot_be_read():
    """Have a session count as unknown while the store does not answer."""

    def missing(ask):
        async def asked(*arguments, **more):
            try:
                return await ask(*arguments, **more)
            except StoreUnavailableError:
                return None

        return asked

    Sessions.read, Sessions.lifecycle = missing(Sessions.read), missing(Sessions.lifecycle)


@contextmanager
def unflushed():
    """Have SQLite's writer wait for no disk."""
    run = lanes.Lane.run

    async def hasty(lane, work, *, flushed=True):
        return await run(lane, work, flushed=False)

    lanes.Lane.run = hasty
    try:
        yield
    finally:
        lanes.Lane.run = run


@contextmanager
def rewritten(name, old, new):
    """Rewrite a part of a named statement in both dialects; what one does not have stays."""
    here, there = transaction._STATEMENTS[name], call.STATEMENTS.get(name)
    done = tuple(one.replace(old, new) for one in here)
    transaction._STATEMENTS[name] = done
    if there is not None:
        call.STATEMENTS[name] = replace(there, sql=there.sql.replace(old, new))
    assert done != here or call.STATEMENTS.get(name) != there, f"{name} has no {old!r}"
    try:
        yield
    finally:
        transaction._STATEMENTS[name] = here
        if there is not None:
            call.STATEMENTS[name] = there
