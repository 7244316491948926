"""Every two operations on the lobby at once, in two processes: as if one came after the other.

What both processes were answered, and what is stored then, must be what the model says of the one
order or of the other.
"""

import asyncio
import copy
import random
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations_with_replacement
from pathlib import Path

from acts import BEFORE, MOMENTS, NAMES, SWEEPS, Act, do_all, do_on_model
from comparison import _by_value
from model import Model
from racer import read, written

from backends import BACKENDS, DUE, NO_STATE, T0, TTL, key, message, note
from lapse.core.lifecycle import Rules
from lapse.core.messages import UsedBy
from lapse.store.postgres import call
from lapse.store.records import Revision
from parts import store_with_parts
from postgres import rows, run
from wrong_sweeps import CHECKS, sweep_wrongly

PAIRS = list(combinations_with_replacement(NAMES, 2))
BATCHES = 100
SESSIONS = 16
"""Sessions on which a pair races at once; it races so often in a batch."""

LATEST = DUE + timedelta(days=1)


class Other:
    """The other process."""

    def __init__(self, url, broken):
        program = Path(__file__).with_name("racer.py")
        self._process = subprocess.Popen(
            [sys.executable, program, url, *([broken] if broken else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self):
        return read(self._process.stdout.readline())

    def ask(self, acts):
        self._process.stdin.write(written(acts))
        self._process.stdin.flush()

    def answers(self):
        return read(self._process.stdout.readline())

    def end(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


@contextmanager
def _world(seed, folder, broken):
    backend = next(one for one in BACKENDS if one.name == ("sqlite", "postgres")[seed % 2])
    if broken:
        backend = next(one for one in BACKENDS if one.name == "postgres")
    kept = dict(call.STATEMENTS)
    with backend.empty(folder / f"race-{seed}") as url:
        if broken:
            constraints = rows(url, CHECKS)
            run(url, *(command for (command,) in constraints))
            sweep_wrongly()
        other = Other(url, broken)
        try:
            yield url, other
        finally:
            other.end()
            call.STATEMENTS.update(kept)


async def play(seed, folder, broken=None):
    """Race pairs of a seed; return how many, and raise what no order of the two explains."""
    chance = random.Random(seed)
    with _world(seed, folder, broken) as (url, other):
        store, passes_over = store_with_parts(url), url.startswith("postgres")
        await asyncio.to_thread(other.ready)
        try:
            for number in range(BATCHES):
                pair = ("message", "sweep") if broken else chance.choice(PAIRS)
                await _race(chance, store, other, number, pair, passes_over=passes_over)
        finally:
            await store.close()
    return BATCHES * SESSIONS


async def _race(chance, store, other, number, pair, *, passes_over):
    around = chance.choice(MOMENTS)
    moments = [chance.choice(around) for _ in pair]
    # What has expired comes first: its sweep would take what waits, too.
    before = sorted((chance.choice(BEFORE) for _ in range(SESSIONS)), key="expired".__ne__)
    models = [await _prepare(store, one, f"u{number}-{n}") for n, one in enumerate(before)]
    acts = [
        [Act(name, where, by, moments[by], seen) for where, _, seen in models]
        for by, name in enumerate(pair)
    ]
    sent = [some[:1] if pair[by] in SWEEPS else some for by, some in enumerate(acts)]
    other.ask(sent[1])
    if pair[0] not in SWEEPS:
        await asyncio.sleep(chance.random() * 0.004)
    own = await do_all(store, sent[0])
    told = (own, await asyncio.to_thread(other.answers))
    races = []
    for place, (where, model, _) in enumerate(models):
        heard = [
            where in some[0] if pair[by] in SWEEPS else some[place] for by, some in enumerate(told)
        ]
        race = _Race(model, [some[place] for some in acts], heard)
        if not race.is_explained_by(await _found(store, where)):
            races.append(race)
    later = await _sweep_again(store, sent) if races and passes_over else {}
    for race in races:
        found = await _found(store, race.acts[0].key)
        assert race.is_swept_later(later, found), f"{pair} at {moments} on {race}: {found}"
    for where, *_ in models:
        await store.delete(where)


@dataclass(frozen=True)
class _Race:
    """One race: the model of the session before it, the acts, and what each was answered."""

    model: Model
    acts: list[Act]
    heard: list

    def is_explained_by(self, found):
        """Return whether the answers, and what is stored, are those of one order of the acts."""
        orders = [_in_order(self.model, self.acts, order) for order in ((0, 1), (1, 0))]
        names = [act.name for act in self.acts]
        orders += [
            _in_order(self.model, self.acts, (1 - by,), self.heard)
            for by in (0, 1)
            if _may_be(names[by], self.heard[by], names[1 - by])
        ]
        return (self.heard, *found) in orders

    def is_swept_later(self, later, found):
        """Return whether a sweep has passed the session over, and the next one took it."""
        for by, taken in later.items():
            if not self.heard[by]:
                heard = [*self.heard]
                heard[by] = self.acts[by].key in taken
                if (heard, *found) == _in_order(self.model, self.acts, (1 - by, by)):
                    return True
        return False


async def _sweep_again(store, sent):
    """Sweep once more where an act was a sweep; return by act which sessions that took.

    A sweep of PostgreSQL passes over a session that another act holds at the moment, and the next
    one takes it. One of SQLite waits instead.
    """
    sweeps = [by for by, (act, *_) in enumerate(sent) if act.name in SWEEPS]
    return {by: (await do_all(store, sent[by]))[0] for by in sweeps}


async def _prepare(store, before, user):
    """Have a session as it may be before a race; return it, its model, and what was seen of it."""
    where = key("s", user)
    model, seen = Model(T0, Rules().horizon, enforced=True), Revision(T0, 0)
    if before == "nothing":
        return where, model, seen
    await store.at(T0).create(where, state=NO_STATE, ttl=TTL, metadata={})
    model.create(where, NO_STATE, TTL, {}, UsedBy.ANYONE)
    event = {"noted": note("n", at=T0), "used": message("m", at=T0)}.get(before)
    if event is not None:
        seen = (await store.at(T0).append(where, event, seen)).value.revision
        model.append(where, event, Revision(T0, 0))
    if before == "expired":
        await store.at(DUE).expire_due(1000)
        model.now = DUE
        model.expire([where])
    return where, model, seen


async def _found(store, where):
    at = store.at(LATEST)
    return await at.lifecycle(where), _by_value(await at.read(where))


OUTDATED = "OutdatedSessionError"


def _may_be(name, heard, other):
    """Return whether an act may be answered like this, and change nothing, beside another act.

    No order of the two explains these answers. What changes nothing looks once more for the
    reason, and tells the reason that it finds if the session has changed by then: an append that
    its caller's session is outdated, an amendment that the session has another status. A delete is
    about the session that it has met, and finds nothing if a create has put another one in its
    place.
    """
    if name in {"message", "note", "repeat"}:
        return heard == OUTDATED
    if name in {"amend", "extend"}:
        return heard == "WrongStatusError"
    return (name, heard, other) == ("delete", ((), False), "create")


def _in_order(model, acts, order, heard=(None, None)):
    """Return what the model answers to each, and what it holds, if they come in this order.

    What is not in the order does nothing, and is answered with what was heard.
    """
    model, heard = copy.deepcopy(model), list(heard)
    for by in order:
        heard[by] = do_on_model(model, acts[by])
    model.now = LATEST
    return heard, model.record(acts[0].key), _by_value(model.read(acts[0].key))
