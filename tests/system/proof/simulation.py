"""One seed drives clock, order, faults and crashes of the real operations, beside the model.

The store is SQLite in memory. Its lane runs on the loop's own thread and does what the seed says:
up to three callers wait at once, in any order, and are committed together or apart; a statement
fails as on a bad disk; the process dies at a statement, or after a commit whose answer nobody
hears; the host's clock jumps, forwards and back. A process that dies leaves its database as its
last commit left it, and the next one opens that with objects of its own.
"""

import asyncio
import copy
import random
import sqlite3
from contextlib import nullcontext
from datetime import timedelta
from functools import cache

from comparison import JUMPS, Comparison
from drive import CHOICES, OFTEN, RULES

from backends import TICK
from breaks import rewritten
from lapse.core.errors import StoreUnavailableError
from lapse.store.sqlite.lanes import Lane, _Job, _roll_back, _settle
from lapse.store.sqlite.schema import prepare_connection, set_up
from parts import store_with_parts

STEPS = 250
"""Steps of one seed. Then there is a new store: what was said makes it slow."""

MEMORY = ":memory:"
BREAKS = ("early answer", "half a commit", "early expiry", "one return")
LAST = ("expire_due", "expire_backlog", "purge_due")
"""What the model can follow only once the store has said which sessions it took."""

BACK = (TICK, timedelta(minutes=4), timedelta(seconds=262))
SIMULATED = CHOICES | {
    "turn_back": (BACK,),
    "pass_time": ((*JUMPS, timedelta(seconds=262)),),
}


class Died(BaseException):
    """The process ends at this statement."""


class Fused(sqlite3.Connection):
    """A connection on which one statement, counted from now, fails or is the last."""

    fuse = -1
    blows = None

    def arm(self, fuse, blows):
        self.fuse, self.blows = fuse, blows

    def disarm(self):
        """Return whether it is still armed, and do nothing any more."""
        left, self.fuse = self.fuse >= 0, -1
        return left

    def _count(self):
        self.fuse -= 1
        if self.fuse == -1:
            raise self.blows

    def execute(self, statement, *arguments):
        if self.fuse >= 0 and statement != "ROLLBACK":
            self._count()
        return super().execute(statement, *arguments)

    def executemany(self, statement, *arguments):
        if self.fuse >= 0:
            self._count()
        return super().executemany(statement, *arguments)


def _begin(connection):
    connection.execute("BEGIN")
    return False


class InlineLane(Lane):
    """The lane of a store, on the thread of the loop: what waits runs when it is pumped."""

    def __init__(self, connection, *, commits_late=False):
        self._place, self._begin = MEMORY, _begin
        self._check, self._flushes = (lambda: None), {}
        self._commits_late = commits_late
        self.connection = connection
        self.waiting = []

    async def run(self, work, *, flushed=True):
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append(_Job(work, answer, flushed))
        return await answer

    def pump(self, most):
        """Commit the next jobs that wait together, and answer them."""
        jobs, self.waiting = self.waiting[:most], self.waiting[most:]
        if self._commits_late and self.connection.in_transaction:
            self.connection.execute("COMMIT")
        outcomes = self._run_together(self.connection, jobs)
        _settle(outcomes)

    def close(self, *, connections=True):
        self.connection.close()


class _Late(Fused):
    """A connection whose commit does nothing until the next one: the break `early answer`."""

    held = False

    def execute(self, statement, *arguments):
        if statement == "COMMIT" and not self.held:
            self.held = True
            return super().execute("SELECT 1")
        self.held = False
        return super().execute(statement, *arguments)


@cache
def _empty():
    connection = sqlite3.connect(MEMORY, isolation_level=None)
    set_up(connection)
    prepare_connection(connection, MEMORY)
    image = connection.serialize()
    connection.close()
    return image


class Process:
    """The objects of one process on a database; `image` is what the last one left."""

    def __init__(self, image, rules, broken):
        kind = _Late if broken == "early answer" else Fused
        self.connection = sqlite3.connect(
            MEMORY, isolation_level=None, factory=kind, cached_statements=256
        )
        self.connection.deserialize(image)
        set_up(self.connection)
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.execute("PRAGMA cache_size = -4000")
        self.lane = InlineLane(self.connection, commits_late=kind is _Late)
        self.store = store_with_parts("sqlite:///:memory:", rules)
        self.store.database._lanes._lanes = (self.lane, self.lane)
        self._broken = broken

    def die(self):
        """End, and return the database as the last commit has left it."""
        if self._broken == "half a commit" and self.connection.in_transaction:
            self.connection.execute("COMMIT")
        _roll_back(self.connection)
        image = self.connection.serialize()
        self.connection.close()
        return image


class Simulation:
    """One history of a seed."""

    def __init__(self, seed, broken=None):
        self.chance = random.Random(seed)
        self.rules = self.chance.choice((RULES[0], *RULES))
        self._broken = broken
        self._process = Process(_empty(), self.rules, broken)
        self.compared = Comparison(self._process.store)
        self.taken = 0

    async def run(self, steps):
        try:
            while self.taken < steps:
                await self._group()
            await self._finish([self.compared.compare()])
        except Exception as error:
            last = "\n  ".join(self.compared.steps[-12:])
            error.add_note(f"step {self.taken}; the last steps:\n  {last}")
            raise
        finally:
            self._process.connection.close()

    async def _group(self):
        """Take the next steps: a few callers at once, or one with a fault, or a death."""
        kind = self.chance.choices(("group", "fault", "death", "lost"), (80, 8, 8, 4))[0]
        names = self._choose(1 if kind == "fault" else self.chance.choice((1, 1, 2, 3)))
        before = None if kind in {"group", "lost"} else self._keep_model()
        if kind == "fault":
            blows = sqlite3.OperationalError("disk I/O error")
            self._process.connection.arm(self.chance.randrange(12), blows)
        if kind == "death":
            self._process.connection.arm(self.chance.randrange(12), Died())
        most = 3 if kind == "death" else self.chance.choice((1, 3))
        calls = [self._step(name) for name in names]
        try:
            await self._finish(calls, most)
        except StoreUnavailableError:
            assert not self._process.connection.disarm(), "it fails without a fault"
            self._put_model_back(before)
            self.compared.steps.append("(the disk failed)")
        except Died:
            self._put_model_back(before)
            self._start_anew("(the process died at a statement)")
        else:
            self._process.connection.disarm()
        if kind == "lost":
            self._start_anew("(the process died after its commit)")
            await self._repeat()
        self.taken += len(names)
        await self._look(0.02 if kind == "group" else 0.3)

    def _choose(self, number):
        """Return steps with their arguments; what the model can only follow is the last."""
        chosen = []
        for _ in range(number):
            name = self.chance.choice((*SIMULATED, *OFTEN))
            chosen.append((name, [self.chance.choice(choice) for choice in SIMULATED[name]]))
            if name in LAST or name in {"pass_time", "turn_back", "go_to_a_deadline"}:
                break
        return chosen

    async def _step(self, step):
        name, arguments = step
        self.compared.steps.append(f"{name}{tuple(arguments)}")
        if name == "turn_back":
            self.compared.model.now -= arguments[0]
            return
        done = getattr(self.compared, name)(*arguments)
        if done is not None:
            await done

    async def _repeat(self):
        """Have the caller whose answer was lost send its event again."""
        for where in self.compared.model.sessions:
            await self._finish([self.compared.repeat(where, 0)])

    async def _finish(self, calls, most=8):
        """Run calls to their end; a lane that is pumped has all of them waiting."""
        tasks = [asyncio.create_task(call) for call in calls]
        try:
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0)
                if self._process.lane.waiting:
                    self._process.lane.pump(most)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _look(self, whole):
        """Compare all with this probability, or else one session, every other time.

        What differs once differs later, too, and in the end all is compared.
        """
        if self.chance.random() < whole:
            await self._finish([self.compared.compare()])
        elif self.chance.random() < 0.5 and (there := list(self.compared.model.sessions)):
            await self._finish([self.compared.compare_one(self.chance.choice(there))])

    def _keep_model(self):
        model = self.compared.model
        return copy.deepcopy((model.sessions, model.app, model.user)), model.now

    def _put_model_back(self, kept):
        model = self.compared.model
        (model.sessions, model.app, model.user), model.now = kept

    def _start_anew(self, why):
        self._process = Process(self._process.die(), self.rules, self._broken)
        self.compared.store = self._process.store
        self.compared.steps.append(why)


REWRITTEN = {
    "early expiry": ("expire_due", "expires_at <= :now", "expires_at <= :now + 1"),
    "one return": ("resurrect", "resurrections = resurrections + 1", "resurrections = 1"),
}


async def play(seed, folder=None, broken=None, steps=STEPS):
    """Take the steps of a seed; return how many. A difference from the model is raised."""
    simulation = Simulation(seed, broken)
    with rewritten(*REWRITTEN[broken]) if broken in REWRITTEN else nullcontext():
        await simulation.run(steps)
    return simulation.taken
