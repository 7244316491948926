"""One call of each operation that writes, while the way to PostgreSQL is disturbed.

The call must come to its end within its patience, and leave the same behind as undisturbed.
"""

import asyncio
import random
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

from calls import CALLS

from breaks import rewritten
from contents import contents
from lapse.core.lifecycle import Rules
from lapse.store.options import ConnectionOptions
from parts import store_with_parts
from postgres import database
from proxy import proxied

RULES = Rules(artifacts=True)
PATIENT = ConnectionOptions(pool_size=1, patience=timedelta(seconds=30))
BRIEF = replace(PATIENT, statement_timeout=timedelta(seconds=1))
HASTY = replace(
    PATIENT, statement_timeout=timedelta(milliseconds=1), patience=timedelta(milliseconds=1)
)
AIMS = [(name, number) for name in CALLS for number in range(len(CALLS[name]))]
FAULTS = {
    "answers lost": "forgetful",
    "resets": "hasty",
    "stalls": "hasty",
    "one-way": "forgetful",
    "slow": "hasty",
    "flapping": "forgetful",
}
"""Each with the break that it must find."""

FORGETFUL = (
    "extend",
    "ON CONFLICT DO NOTHING\nRETURNING attempt",
    "ON CONFLICT (attempt) DO UPDATE SET at = excluded.at\nRETURNING attempt",
)


async def _disturb(proxy, fault, chance):
    """Disturb the way from the next question on, at a random place of the call."""
    after = chance.randrange(3)
    match fault:
        case "answers lost":
            proxy.arm(after=after)
        case "resets":
            proxy.cut(after=after)
        case "stalls":
            proxy.fall_silent(after=after)
            await proxy.asked.wait()
            await asyncio.sleep(chance.choice((0.01, 0.1, 0.3)))
            proxy.speaks.set()
        case "one-way":
            proxy.swallow(after=after)
        case "slow":
            proxy.delay = lambda: chance.random() * 0.02
        case "flapping":
            for _ in range(chance.randint(2, 4)):
                proxy.arm(after=chance.randrange(2))
                await proxy.lost.wait()


_expected = {}
"""What each call answers and leaves behind where nothing disturbs it, once it is known."""


async def _undisturbed(call):
    if call not in _expected:
        _expected[call] = await _call_alone(call)
    return _expected[call]


async def _call_alone(call):
    with database() as url:
        store = store_with_parts(url, RULES)
        await call.needs(store)
        told = await call.make(store.at(call.at))
        wanted = await contents(url, call.besides)
        await store.close()
    return told, wanted


async def play(seed, _folder=None, broken=None, *, fault):
    """Disturb one call of one operation, the next one for the next seed; return 1 if it was hit."""
    chance = random.Random(seed)
    name, number = AIMS[seed % len(AIMS)] if broken != "forgetful" else ("extend", 0)
    call = CALLS[name][number]
    told, wanted = await _undisturbed(call)
    options = HASTY if broken == "hasty" else BRIEF if fault == "one-way" else PATIENT
    with rewritten(*FORGETFUL) if broken == "forgetful" else nullcontext():
        answered, found, hits = await _disturbed(call, fault, chance, options)
    different = [table for table in wanted if found.get(table) != wanted[table]]
    assert not different, f"{name}: {', '.join(different)} differ from an undisturbed call's"
    if call.answers_the_same:
        assert answered == told, f"{name}: it answers {answered}, and undisturbed {told}"
    return int(hits > 0)


async def _disturbed(call, fault, chance, options):
    """Return what the call answered and has left, and how often it was hit."""
    with database() as url:
        async with proxied(url) as (proxy, behind):
            direct = store_with_parts(url, RULES)
            store = store_with_parts(behind, RULES, options)
            await direct.time_to_next()
            if options is not HASTY:
                await store.time_to_next()  # a connection is in the pool
            await call.needs(direct)
            disturbing = asyncio.create_task(_disturb(proxy, fault, chance))
            await asyncio.sleep(0)
            answered = await call.make(store.at(call.at))
            disturbing.cancel()
            await asyncio.gather(disturbing, return_exceptions=True)
            proxy.calm()
            found = await contents(url, call.besides)
            await store.close()
            await direct.close()
    return answered, found, proxy.struck
