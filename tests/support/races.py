"""What races of calls have in common."""

import asyncio
import random
from datetime import timedelta

from backends import DUE, T0, create
from lapse.core.messages import UsedBy
from lapse.store.records import LastSeen, Revision

ROUNDS = 12
SESSIONS = [f"s{number:02}" for number in range(16)]
GONE = T0 + timedelta(hours=24)
FRESH = Revision(T0, 0)
ANYTHING = LastSeen(T0 + timedelta(days=9), None)


async def at_once(seed, *calls):
    """Run calls as tasks that start in a shuffled order; return their results in the given."""
    order = list(range(len(calls)))
    random.Random(seed).shuffle(order)
    tasks = {position: asyncio.create_task(calls[position]) for position in order}
    return await asyncio.gather(
        *(tasks[position] for position in range(len(calls))), return_exceptions=True
    )


async def prepare(store, number, *, used_by=UsedBy.ANYONE):
    """Return the names of fresh sessions for one round."""
    names = [f"{number}-{name}" for name in SESSIONS]
    await asyncio.gather(*(create(store, name, used_by=used_by) for name in names))
    return names


async def sweep(store, now=DUE):
    """Sweep in small batches until nothing is due, and return what expired."""
    expired = []
    while (swept := await store.at(now).expire_due(5)).value:
        expired += [change.record.key.session_id for change in swept.changes]
    return expired


def succeeded(results):
    return [result for result in results if not isinstance(result, BaseException)]


def fail_on_others(results, *allowed):
    """Raise any exception among the results that is not allowed."""
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, allowed):
            raise result
