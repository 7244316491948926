"""The connection breaks, and the answer of an operation is lost: its repeat does nothing twice."""

import asyncio
import importlib
import inspect
import re
from dataclasses import replace
from pathlib import Path

import pytest
from calls import CALLS
from needs import BRAKE, DAY, waiting

import lapse
from backends import HOUR, T0, create, key, message, use
from contents import contents
from lapse.core.lifecycle import Cause, ChangeKind, Rules, Status
from lapse.store.operation import Part
from lapse.store.options import ConnectionOptions
from parts import store_with_parts
from postgres import database, rows
from proxy import proxied
from serving import eventually

ONE = ConnectionOptions(pool_size=1)
RULES = Rules(artifacts=True)
SOURCES = Path(lapse.__file__).parent


class Disturbed:
    """A store behind a proxy that can lose answers, and a store on the same database."""

    def __init__(self, url, proxy, proxied_url):
        self.url, self.proxy = url, proxy
        self.store = store_with_parts(proxied_url, RULES, ONE)
        self.direct = store_with_parts(url, RULES)

    async def __aenter__(self):
        await self.store.time_to_next()  # a connection is in the pool
        return self

    async def __aexit__(self, *_):
        await self.store.close()
        await self.direct.close()

    async def losing_the_last(self, call, meanwhile):
        """Make a call, lose its last answer, and do something else before it is repeated."""
        before = self.proxy.answers
        await call(self.store, "rehearsal")
        answers = self.proxy.answers - before
        before = self.proxy.answers
        await call(self.store, "rehearsal again")
        answers = min(answers, self.proxy.answers - before)
        self.proxy.open.clear()
        self.proxy.arm(after=answers - 1)
        asked = asyncio.create_task(call(self.store, "s1"))
        await self.proxy.lost.wait()
        await meanwhile(self.direct)
        self.proxy.open.set()
        return await asked


@pytest.fixture
async def disturbed():
    with database() as url:
        async with proxied(url) as (proxy, behind), Disturbed(url, proxy, behind) as both:
            yield both


def writing_operations():
    """Return every operation that writes, of every part, by its name."""
    found = {}

    class Asked:
        async def run(self, _asking, *, writes=True, **_options):
            return writes

    for file in SOURCES.glob("**/*.py"):
        for name in re.findall(r"^class (\w+)\((?:\w+, )*Part\):", file.read_text(), re.MULTILINE):
            module = ".".join(("lapse", *file.relative_to(SOURCES).with_suffix("").parts))
            part = getattr(importlib.import_module(module), name)
            assert issubclass(part, Part)
            for method in vars(part).values():
                if inspect.isgeneratorfunction(getattr(method, "__wrapped__", None)):
                    writes = asyncio.run(method(part(Asked())))
                    if writes:
                        assert method.__name__ not in found
                        found[method.__name__] = method
    return found


def test_every_operation_that_writes_is_called_here_and_says_how_its_repeat_is_recognised():
    """Seen to fail with an operation that is in no row, and with a docstring that says nothing."""
    operations = writing_operations()
    assert set(CALLS) == set(operations)
    for name, method in operations.items():
        text = " ".join(method.__doc__.split())
        assert re.search(r"\b[Aa] repeat ", text), f"{name} does not say what a repeat does"


@pytest.mark.long
@pytest.mark.parametrize(
    "call",
    [pytest.param(one, id=f"{name}-{n}") for name in CALLS for n, one in enumerate(CALLS[name])],
)
async def test_an_operation_leaves_the_same_behind_whichever_answer_is_lost(call):
    """Seen to fail with `extend`, `amend` and `record_act` without their notes."""
    with database() as url:
        store = store_with_parts(url, RULES)
        await call.needs(store)
        told = await call.make(store.at(call.at))
        wanted = await contents(url, call.besides)
        await store.close()
    lost = 0
    while True:
        with database() as url:
            async with proxied(url) as (proxy, behind), Disturbed(url, proxy, behind) as both:
                await call.needs(both.direct)
                proxy.arm(after=lost)
                answered = await call.make(both.store.at(call.at))
                proxy.disarm()
                assert await contents(url, call.besides) == wanted
                if call.answers_the_same:
                    assert answered == told
                if not proxy.lost.is_set():
                    break
        lost += 1
    assert lost > 0


async def acts_and_counts(store):
    """Return what is in the audit log, and how often each change was counted."""
    acts = [(act.action, act.session) for act in await store.acts(newest=100)]
    overview = await store.overview(since=400 * DAY)
    counts = {}
    for one in overview.counts:
        counts[one.kind] = counts.get(one.kind, 0) + one.sessions
    return acts, counts


async def test_a_repeated_delete_never_meets_another_session_of_the_same_id(disturbed):
    """Seen to fail with a delete that names the key alone."""

    async def delete(store, name):
        await create(disturbed.direct, name, now=None)
        return await store.delete(key(name), by="op")

    async def create_and_speak(direct):
        assert await direct.read(key()) is None
        await use(direct, now=T0 + HOUR)

    deleted = await disturbed.losing_the_last(delete, create_and_speak)
    assert [change.kind for change in deleted.changes] == [ChangeKind.DELETED]
    found = await disturbed.direct.read(key())
    assert [event.id for event in found.events] == ["m1"]
    acts, counts = await acts_and_counts(disturbed.direct)
    assert len(acts) == counts[ChangeKind.DELETED] == 3


async def test_a_repeated_delete_of_a_used_session_never_meets_another(disturbed):
    async def delete(store, name):
        await use(disturbed.direct, name)
        return await store.delete(key(name), by="op")

    async def create_and_speak(direct):
        await use(direct, now=T0 + HOUR)

    await disturbed.losing_the_last(delete, create_and_speak)
    assert len((await disturbed.direct.read(key())).events) == 1


async def test_a_delete_that_was_not_carried_out_follows_the_session_into_adks_tables(disturbed):
    """The first message comes between the lost attempt and the repeat: it is the same session."""
    await waiting(disturbed.direct)
    proxy = disturbed.proxy
    proxy.open.clear()
    before = proxy.answers
    await disturbed.store.time_to_next()
    proxy.arm(after=proxy.answers - before + 2)
    asked = asyncio.create_task(disturbed.store.delete(key()))
    await proxy.lost.wait()
    seen = (await disturbed.direct.at(T0).read(key())).revision
    await disturbed.direct.at(T0).append(key(), message(), seen)
    proxy.open.set()
    assert (await asked).changes
    assert await disturbed.direct.read(key()) is None
    assert await disturbed.direct.lifecycle(key()) is None


async def test_a_repeated_expire_leaves_a_session_that_was_resurrected_since(disturbed):
    """Seen to fail with an expire that knows its repeat by the status alone."""

    async def expire(store, name):
        await create(disturbed.direct, name, now=None)
        return await store.expire(key(name), by="op")

    async def resurrect(direct):
        await direct.resurrect(key(), cause=Cause.REQUEST, by="ann")

    expired = await disturbed.losing_the_last(expire, resurrect)
    assert expired.value.status is Status.WAITING
    assert expired.changes == ()
    assert (await disturbed.direct.lifecycle(key())).status is Status.WAITING
    acts, counts = await acts_and_counts(disturbed.direct)
    assert counts[ChangeKind.EXPIRED] == 3
    assert counts[ChangeKind.RESURRECTED] == 1
    assert len(acts) == 4


async def test_a_repeated_resurrect_leaves_a_session_that_was_expired_since(disturbed):
    async def resurrect(store, name):
        await create(disturbed.direct, name, now=None)
        await disturbed.direct.expire(key(name))
        return await store.resurrect(key(name), cause=Cause.REQUEST, by="op")

    async def expire(direct):
        await direct.expire(key(), by="ann")

    await disturbed.losing_the_last(resurrect, expire)
    assert (await disturbed.direct.lifecycle(key())).status is Status.EXPIRED
    _, counts = await acts_and_counts(disturbed.direct)
    assert counts[ChangeKind.RESURRECTED] == 3


async def test_a_repeated_amend_leaves_what_others_have_amended_since(disturbed):
    """Seen to fail with an amend that is repeated as it was."""

    async def amend(store, name):
        await create(disturbed.direct, name, now=None)
        return await store.amend(key(name), metadata={"k": 1}, ttl=HOUR, by="op")

    async def amend_again(direct):
        await direct.amend(key(), metadata={"k": 2}, ttl=2 * HOUR, by="ann")

    amended = await disturbed.losing_the_last(amend, amend_again)
    record = await disturbed.direct.lifecycle(key())
    assert record == amended.value
    assert (record.metadata, record.ttl) == ({"k": 2}, 2 * HOUR)
    acts, counts = await acts_and_counts(disturbed.direct)
    assert len(acts) == counts[ChangeKind.AMENDED] == 4


async def test_ten_extends_whose_answers_are_lost_are_ten_acts(disturbed):
    """Seen to fail with an extend without its note: twenty acts, twenty counted."""
    await create(disturbed.direct, now=None)
    await disturbed.store.extend(key(), by="op")
    for _ in range(9):
        await disturbed.store.time_to_next()
        disturbed.proxy.arm(after=0)
        await disturbed.store.extend(key(), by="op")
        assert disturbed.proxy.lost.is_set()
    acts, counts = await acts_and_counts(disturbed.direct)
    assert len(acts) == counts[ChangeKind.EXTENDED] == 10


async def test_a_repeated_brake_that_was_released_since_stays_released(disturbed):
    """Seen to fail with a brake that is not known by its `since`."""

    async def brake(store, name):
        number = ["rehearsal", "rehearsal again", "s1"].index(name)
        await disturbed.direct.release_brake(since=T0 + (number - 1) * DAY)
        return await store.set_brake(replace(BRAKE, since=T0 + number * DAY))

    async def release(direct):
        assert await direct.release_brake(since=T0 + 2 * DAY)

    assert await disturbed.losing_the_last(brake, release)
    assert await disturbed.direct.brake() is None


async def test_a_lost_attempt_that_is_still_under_way_is_not_repeated_beside_itself(disturbed):
    """The first attempt waits for a lock when its connection breaks, and is carried out later."""
    await create(disturbed.direct, now=None)
    await disturbed.store.extend(key(), by="op")
    holding = disturbed.direct.database._connections.alone()
    async with holding as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM lapse_lobby FOR UPDATE")
        asked = asyncio.create_task(disturbed.store.extend(key(), by="op"))
        await asyncio.to_thread(eventually, lambda: waiting_for_locks(disturbed.url, 1))
        disturbed.proxy.hang_up()
        await asyncio.to_thread(eventually, lambda: waiting_for_locks(disturbed.url, 2))
    await asked
    acts, counts = await acts_and_counts(disturbed.direct)
    assert len(acts) == counts[ChangeKind.EXTENDED] == 2


def waiting_for_locks(url, statements):
    """Return whether so many statements wait for a lock."""
    query = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
    """
    return rows(url, query) == [(statements,)]
