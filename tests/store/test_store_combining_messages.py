"""Messages that share a statement on PostgreSQL have the effect that each would have alone."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from shared_statements import (
    NAMES,
    ONE,
    RULES,
    a_store,
    ask,
    holding,
    nothing_is_combined,
    together,
)

from backends import DUE, T0, TICK, TTL, create, key, levels, message, note, use, words
from contents import contents
from lapse.core.lifecycle import Status
from lapse.core.messages import UsedBy
from lapse.store.records import LastSeen, Revision
from parts import store_with_parts
from proxy import proxied

LATER = DUE + TTL
END = T0 + RULES.horizon
"""No longer restorable is what was created at T0 and has expired."""
FIRST = Revision(T0, 0, waiting=True)
LATE = [f"late {number}" for number in range(6)]
JUST_DUE = [f"due {number}" for number in range(6)]
OUTDATED = [f"outdated {number}" for number in range(6)]
CURRENT = [f"current {number}" for number in range(6)]
EXPIRED = [f"expired {number}" for number in range(6)]
GONE = [f"gone {number}" for number in range(6)]
ARCHIVED = [f"archived {number}" for number in range(6)]
"""So many of each that some share a statement, after another one has met them."""


async def before_messages(url, store):
    """Make the sessions that messages are for; return what the writer of each has seen."""
    for name in (*NAMES[:4], "stale", "last", "both", "legacy", "described", *LATE, *JUST_DUE):
        await create(store, name, metadata={"segment": name, "kind": f"{name}-session"})
    for name in ("bob", "bobs"):
        await create(store, key(name, "bob"), state={"x": {"deep": 1}})
    for name in ("agents", "asked"):
        await create(store, name, used_by=UsedBy.USER)
    for name in ("of app", "of user"):
        await create(store, key(name, app=name))
    seen = dict.fromkeys(("bob", "bobs", "of app", "of user", "unknown"), FIRST)
    await create(store, "held")
    held = await store.at(T0).append(key("held"), note("n1"), FIRST)
    held = await store.at(T0).append(key("held"), note("n2"), held.value.revision)
    seen["held"] = replace(held.value.revision, waiting=True)
    for name in (
        *(f"used {n}" for n in range(4)),
        "used stale",
        "repeated",
        "taken",
        "used last",
        "used elsewhere",
        *OUTDATED,
        *CURRENT,
        *ARCHIVED,
    ):
        seen[name] = await use(store, name)
    # Stock ADK has made them again since they were archived.
    await ask(
        url,
        "UPDATE lapse_lobby SET status = 'archived', state = '{}', held_events = '[]'"
        " WHERE session_id ~ '^archived'",
    )
    for name in (*EXPIRED, *GONE):
        await create(store, name)
        await store.at(T0).expire(key(name))
    await ask(
        url,
        "INSERT INTO sessions VALUES ('app', 'ann', 'stock', '{}', '2029-01-01', '2029-01-01')",
    )
    return seen


def messages(store, seen):
    """Return messages of every kind, first ones and later ones, and what they meet."""
    at, later = store.at(DUE - TICK), store.at(LATER)

    def said(name, event_id="m2", revision=None, **more):
        session = key(name, "bob" if "bob" in name else "ann")
        event = message(event_id, at=DUE, **more)
        return at.append(session, event, revision or seen.get(name, FIRST))

    return [
        *(said(name, state={"n": name}) for name in NAMES[:4]),
        *(said(f"used {n}", state={"n": n}) for n in range(4)),
        *(
            said(name)
            for name in ("bob", "bobs", "legacy", "described", "held", "asked", "unknown")
        ),
        said("held", "n1"),
        said("stale", revision=Revision(T0, 7, waiting=True)),
        said("used stale", revision=Revision(T0, 0)),
        said("used elsewhere", revision=Revision(T0 + TICK, 1)),
        *(said(name, revision=LastSeen(T0 - TICK, "another")) for name in OUTDATED),
        *(said(name, revision=LastSeen(T0, "another")) for name in CURRENT),
        said("repeated", "m1"),
        said("taken", "m1", text="other words"),
        *(said(name, revision=LastSeen(DUE, None)) for name in ("last", "used last", "stock")),
        *(said(name, revision=LastSeen(DUE, None)) for name in ARCHIVED),
        at.append(key("agents"), words("w1", at=DUE), FIRST),
        at.append(key("of app", app="of app"), message(state={"app:a": 1}), FIRST),
        at.append(key("of user", app="of user"), message(state={"user:a": 1}), FIRST),
        *(store.at(DUE).append(key(name), message(at=DUE), FIRST) for name in JUST_DUE),
        *(later.append(key(name), message(at=LATER), FIRST) for name in (*LATE, *EXPIRED)),
        *(store.at(END).append(key(name), message(at=END), FIRST) for name in GONE),
    ]


async def test_messages_that_share_a_statement_have_the_effect_that_each_would_have_alone(batches):
    """The results are the same, and so is everything that the database holds afterwards.

    Seen to fail with a `first_message_many` that moves no held events, and with one that counts
    the revivals of overdue sessions as plain first messages; and with an `append_many` that takes
    no notice of the revision that the writer has seen.
    """
    told, left = [], []
    for alone in (True, False):
        async with a_store() as (url, store):
            seen = await before_messages(url, store)
            if alone:
                with nothing_is_combined():
                    told.append(await together(*messages(store, seen)))
                assert batches.keys == []
            else:
                told.append(await together(*messages(store, seen)))
                assert sum(batches.done) >= 8
            left.append(await contents(url))
    assert told[0] == told[1]
    assert left[0] == left[1]


async def expired(store, where):
    await create(store, where)
    await store.at(T0).expire(where)


async def holding_one(store, where):
    await store.at(T0).append(where, note("n1"), await create(store, where))


async def used(store, where):
    await store.at(T0).append(where, message(), await create(store, where))


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (expired, FIRST),
        (create, LastSeen(T0, "another")),
        (holding_one, LastSeen(T0 - TICK, "n1")),
        (used, LastSeen(T0, "another")),
        (used, LastSeen(T0 - TICK, "m1")),
    ],
    ids=["expired", "first at its time", "first after its event", "at its time", "after its event"],
)
async def test_a_shared_statement_takes_each_kind_of_message(batches, make, seen):
    """Not every round has messages that meet. Seen to fail without each part of what takes them."""
    async with a_store() as (_, store):
        for number in range(50):
            keys = [key(f"{number} {name}") for name in NAMES]
            for one in keys:
                await make(store, one)
            batches.done.clear()
            said = (store.at(T0).append(one, message("m2", at=DUE), seen) for one in keys)
            await asyncio.gather(*said)
            if any(batches.done):
                return
    pytest.fail("a statement for one has taken each")


async def test_where_nothing_is_restorable_late_messages_are_refused_together(batches):
    """Seen to fail with a `first_message_many` that asks whether the deadline has come already."""
    async with a_store(rules=replace(RULES, horizon=timedelta(0))) as (_, store):
        for name in NAMES:
            await create(store, name)
        in_time, late = NAMES[:6], NAMES[6:]
        told = await together(
            *(store.at(DUE - TICK).append(key(s), message(at=T0), FIRST) for s in in_time),
            *(store.at(DUE).append(key(s), message(at=T0), FIRST) for s in late),
        )
        shared = {one.session_id for batch in batches.keys for one in batch}
        assert shared & set(in_time)
        assert shared & set(late)
        assert [isinstance(one, tuple) for one in told] == [False] * 6 + [True] * 6
        kept = [await store.at(DUE).read(key(name)) for name in NAMES]
        assert [one is not None for one in kept] == [True] * 6 + [False] * 6


@pytest.mark.parametrize("is_used", [False, True], ids=["first", "later"])
async def test_a_locked_session_is_skipped_and_has_its_message_when_the_lock_is_gone(
    batches, is_used
):
    """Some sessions are locked by others: in a lane of their own, and in a batch.

    Seen to fail with a shared statement that waits for locked rows: it does nothing for anybody.
    """
    held = (NAMES[0], NAMES[1], NAMES[7])
    lock = "SELECT FROM lapse_lobby WHERE session_id = $1 FOR UPDATE"
    async with a_store() as (url, store):
        seen = [await (use if is_used else create)(store, name) for name in NAMES]
        async with holding(url, lock, held):
            tasks = {
                name: asyncio.create_task(
                    store.at(T0).append(
                        key(name), message("m2", at=DUE), replace(one, waiting=not is_used)
                    )
                )
                for name, one in zip(NAMES, seen, strict=True)
            }
            async with asyncio.timeout(9):  # less than a statement may take
                await asyncio.gather(*(task for name, task in tasks.items() if name not in held))
            assert max(batches.done) >= len(NAMES) - 4
            assert not any(tasks[name].done() for name in held)
        await asyncio.gather(*tasks.values())
        for name in NAMES:
            events = (await store.at(DUE).read(key(name))).events
            assert [one.id for one in events] == ["m1", "m2"][not is_used :]


@pytest.mark.usefixtures("one_lane")
@pytest.mark.parametrize("is_used", [False, True], ids=["first", "later"])
async def test_a_message_whose_answer_is_lost_is_stored_once(batches, is_used):
    """The statement for many was carried out, and its answer is lost.

    Seen to fail with a batch whose failure is that of all its callers.
    """
    async with a_store(ONE) as (url, direct), proxied(url) as (proxy, behind):
        store = store_with_parts(behind, RULES, ONE)
        before = [f"{name} before" for name in NAMES]
        seen = {name: await (use if is_used else create)(direct, name) for name in before + NAMES}

        def calls(names):
            revisions = (replace(seen[name], waiting=not is_used) for name in names)
            return (
                store.at(T0).append(key(name), message("m2", at=DUE), revision)
                for name, revision in zip(names, revisions, strict=True)
            )

        async def lose():
            proxy.arm()

        await asyncio.gather(*calls(before))
        batches.before, batches.keys[:] = lose, []
        found = await asyncio.gather(*calls(NAMES))
        assert proxy.lost.is_set()
        assert len(batches.keys) == 1
        assert [one.value.repeated for one in found] == [False] + [True] * (len(NAMES) - 1)
        for name in NAMES:
            events = (await direct.at(DUE).read(key(name))).events
            assert [one.id for one in events] == ["m1", "m2"][not is_used :]
        assert await levels(direct) == {("app", Status.USED): 2 * len(NAMES)}
        await store.close()


async def test_a_session_that_stock_adk_has_made_meanwhile_fails_no_other_message(batches):
    """Its message cannot move it into ADK's tables, where its key is taken.

    Seen to fail with a `first_message_many` that passes over rows that ADK's tables have already.
    """
    async with a_store() as (url, store):
        for name in NAMES:
            await create(store, name)
        await ask(
            url,
            "INSERT INTO sessions SELECT app_name, user_id, session_id, '{}', update_time,"
            f" update_time FROM lapse_lobby WHERE session_id = '{NAMES[6]}'",
        )
        found = await together(
            *(store.at(T0).append(key(name), message(at=DUE), FIRST) for name in NAMES)
        )
        assert batches.done[0] == 0
        assert all(one.changes for name, one in zip(NAMES, found, strict=True) if name != NAMES[6])
        for name in NAMES:
            assert [one.id for one in (await store.at(T0).read(key(name))).events] == ["m1"]
