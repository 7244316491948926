"""Erasing a user: nothing of them stays anywhere, and nothing of anybody else goes."""

import asyncio
import json
from hashlib import sha256

import pytest
from google.adk.artifacts.in_memory_artifact_service import InMemoryArtifactService
from google.adk.memory.in_memory_memory_service import InMemoryMemoryService
from google.adk.sessions.session import Session
from google.genai import types

import canary
from adk_builders import message_event
from backends import HOUR, T0, create, key, message, use
from lapse.adk.remembered import Memory
from lapse.core.errors import InvalidValueError, NoSuchSessionError, StoreUnavailableError
from lapse.core.keys import SessionKey, user_digest
from lapse.erasure.erasing import MOST_PASSES, Erasure
from lapse.erasure.services import Artifacts
from lapse.retention.policy import parse_policy
from lapse.store.sessions import Sessions
from users_data import APPS, fill

USER = "canary zoë"
MARK = "canary"
OTHER = "bob"


def erasure(store, user=USER, **more):
    return Erasure(store, user, end=Sessions(store).delete, **more)


async def everything(store, user):
    """Return what is read of a user."""
    found = []
    for app in APPS:
        for session in await store.at(T0).list(app, user):
            record = await store.at(T0).lifecycle(session.key)
            found.append((await store.at(T0).read(session.key), record))
        found.append(await store.user_state(app, user))
    return found


async def test_no_byte_of_the_user_stays_and_nothing_of_others_goes(
    backend, store, store_url, tmp_path
):
    """Seen to fail without each of five places, without either redaction of the audit, and on
    PostgreSQL without the traces of deleted sessions."""
    await fill(store, USER, MARK)
    await fill(store, OTHER, "others")
    before = await everything(store, OTHER)
    if backend.shared:
        assert canary.found(store_url, MARK)
    receipt = await erasure(store).run("op")
    await store.scrub()
    assert receipt.is_whole
    assert receipt.erased["sessions"] == 12
    assert set((await erasure(store).plan()).values()) == {0}
    assert await everything(store, USER) == [{}, {}]
    assert await everything(store, OTHER) == before
    if backend.shared:
        assert canary.found(store_url, MARK) == []
        assert canary.found(store_url, "others")
        for text in (user_digest(USER), *(one.digest for one in keys())):
            assert canary.found(store_url, text) == []


def keys():
    names = ("used", "held", "asked", "expired", "keyed")
    return [SessionKey(app, USER, f"{MARK}-{app}-{name}") for app in APPS for name in names]


async def test_the_plan_counts_what_an_erasure_then_removes(store):
    await fill(store, USER, MARK)
    planned = await erasure(store).plan()
    assert await store.at(T0).read(keys()[0]) is not None
    erased = (await erasure(store).run("op")).erased
    planned.pop("events")
    for name in ("runs", "owed_artifacts"):  # they go with their session, or not at all
        planned.pop(name)
    assert {name: number for name, number in planned.items() if number} == {
        # A session that is deleted before its first message is observed.
        **erased, "observations": erased["observations"] - 8,
    }  # fmt: skip


async def test_the_receipt_is_recorded_and_names_nobody_but_to_who_has_its_key(store):
    await fill(store, USER, MARK)
    receipt = await erasure(store).run("op")
    (act,) = await store.acts(newest=1)
    assert (act.by, act.action, act.app_name, act.session) == ("op", "erased", None, None)
    assert act.detail == receipt.detail()
    assert act.detail["receipt"] == sha256(f"{receipt.key} {USER}".encode()).hexdigest()
    assert receipt.key not in json.dumps(dict(act.detail))


async def test_acts_stay_without_names_and_those_of_others_stay_as_they_are(store):
    """Seen to fail where the acts of an operator of the user's name are changed, and where who
    exported the user is taken out."""
    await fill(store, USER, MARK)
    await fill(store, OTHER, "others")
    await store.record_act(USER, "swept", {"expired": 3})  # an operator who has the user's name
    await store.record_act("op", "exported", {"user": user_digest(USER), "lines": 1})
    of_other = [SessionKey(app, OTHER, f"others-{app}-used").digest for app in APPS]
    kept = [act for act in await store.acts(newest=99) if act.digest in of_other]
    number = len(await store.acts(newest=99))
    await erasure(store).run("op")
    acts = await store.acts(newest=99)
    assert len(acts) == number + 1
    assert [act for act in acts if act.digest in of_other] == kept
    swept, exported = (
        [(act.by, dict(act.detail)) for act in acts if act.action == action]
        for action in ("swept", "exported")
    )
    assert (swept, exported) == ([(USER, {"expired": 3})], [("op", {})])
    assert {act.by for act in acts if act.action == "deleted"} == {"erased", OTHER}


async def test_the_audit_refuses_changes_after_an_erasure_as_before(store, stock):
    """Seen to fail without the statement that locks it again."""
    await fill(store, USER, MARK)
    await erasure(store).run("op")
    with pytest.raises(Exception, match="append-only"):
        await stock.rows("UPDATE lapse_audit SET principal = 'x'")


async def test_an_observation_stays_for_the_statistics_under_a_pseudonym(store, stock):
    await fill(store, USER, MARK)
    before = await stock.rows("SELECT count(*) AS n FROM lapse_observations WHERE outcome = 'used'")
    await erasure(store).run("op")
    found = await stock.rows(
        "SELECT count(*) AS n, count(DISTINCT user_id) AS users, min(user_id) AS name "
        "FROM lapse_observations WHERE outcome = 'used'"
    )
    assert found[0]["n"] == before[0]["n"] == 4
    assert found[0]["users"] == 1
    assert found[0]["name"].startswith("erased-")


async def test_artifacts_go_those_of_ended_sessions_and_of_the_user_too(open_store):
    """Seen to fail without those that ended sessions still owe."""
    store = await open_store(artifacts=True)
    service = InMemoryArtifactService()
    await use(store, "s1")
    await use(store, "gone")
    for session in ("s1", "gone"):
        for name in ("own.txt", "user:shared.txt"):
            await service.save_artifact(
                **key(session)._asdict(), filename=name, artifact=types.Part(text="x")
            )
    await service.save_artifact(
        **key("s1", "bob")._asdict(), filename="his.txt", artifact=types.Part(text="x")
    )
    await store.delete(key("gone"))
    planned = await erasure(store, "ann", artifacts=Artifacts(service)).plan()
    assert (planned["artifacts"], planned["owed_artifacts"]) == (2, 1)
    receipt = await erasure(store, "ann", artifacts=Artifacts(service)).run("op")
    assert receipt.erased["artifacts"] == 3
    assert [path for path, found in service.artifacts.items() if found] == ["app/bob/s1/his.txt"]


@pytest.mark.parametrize("archived", [False, True])
async def test_memory_goes_event_by_event_where_its_service_can_delete(store, archived):
    """Seen to fail where only ADK's tables are asked for events."""
    service = InMemoryMemoryService()
    await use(store, "s1")
    found = await store.read(key("s1"))
    session = message_session(found)
    await service.add_session_to_memory(session)
    if archived:
        policy = parse_policy("[default]\nidle = '1s'\n")
        done = await store.at(T0 + HOUR).archive_sessions([key("s1")], policy)
        assert done.value.archived == 1
    asked = {"app_name": "app", "user_id": "ann", "query": "hello"}
    assert (await service.search_memory(**asked)).memories
    receipt = await erasure(store, "ann", memory=Memory(service)).run("op")
    assert (await service.search_memory(**asked)).memories == []
    assert not [one for one in receipt.remains if "memory" in one]


@pytest.mark.parametrize("is_known", [True, False])
async def test_what_is_still_to_be_forgotten_of_purged_sessions_is(store, is_known):
    """Where no memory service is known, that is told, and nothing goes on naming the user.

    Seen to fail with an erasure that does not look into the outbox of memory.
    """
    service = InMemoryMemoryService()
    await use(store, "s1")
    await service.add_session_to_memory(message_session(await store.read(key("s1"))))
    policy = parse_policy("[default]\nidle = '1s'\narchive = '1s'\n")
    await store.at(T0 + HOUR).archive_sessions([key("s1")], policy)
    (taken,) = await store.at(T0 + 2 * HOUR).take_to_purge(1, lease=HOUR)
    assert (await store.at(T0 + 2 * HOUR).purge_taken(taken, ["m1"])).value == 1
    memory = Memory(service) if is_known else None
    assert (await erasure(store, "ann", memory=memory).plan())["owed_memory"] == 1
    receipt = await erasure(store, "ann", memory=memory).run("op")
    assert (await erasure(store, "ann").plan())["owed_memory"] == 0
    found = await service.search_memory(app_name="app", user_id="ann", query="hello")
    assert bool(found.memories) == (not is_known)
    assert ("memory: it is not known where it is kept" in receipt.remains) == (not is_known)
    assert await store.at(T0 + 9 * HOUR).take_memory(9, lease=HOUR) == []


def message_session(record):
    event = message_event("hello")
    event.id = record.events[0].id
    return Session(app_name="app", user_id="ann", id=record.key.session_id, events=[event])


async def test_a_memory_service_that_cannot_delete_is_named_in_the_receipt(store):
    class Keeps:
        async def delete_memory(self, **_):
            raise NotImplementedError

    await use(store, "s1")
    receipt = await erasure(store, "ann", memory=Memory(Keeps())).run("op")
    assert "memory: its service cannot delete" in receipt.remains


async def test_an_erasure_that_was_stopped_goes_on_where_it_was(open_store):
    """Seen to fail where a session goes before its artifacts."""
    store = await open_store(artifacts=True)
    await fill(store, USER, MARK)

    class Down:
        """A service that is away once, in the middle."""

        def __init__(self):
            self.kept, self.calls = InMemoryArtifactService(), 0

        async def list_artifact_keys(self, **scope):
            self.calls += 1
            if self.calls == 3:
                raise ConnectionError
            return await self.kept.list_artifact_keys(**scope)

        async def delete_artifact(self, **named):
            await self.kept.delete_artifact(**named)

    service = Down()
    for one in keys():
        await service.kept.save_artifact(
            **one._asdict(), filename="x.txt", artifact=types.Part(text="x")
        )
    with pytest.raises(StoreUnavailableError, match="artifact service"):
        await erasure(store, artifacts=Artifacts(service)).run("op")
    left = sum([len(await store.at(T0).list(app, USER)) for app in APPS])
    assert 0 < left < 10
    receipt = await erasure(store, artifacts=Artifacts(service)).run("op")
    assert receipt.is_whole
    assert not any(service.kept.artifacts.values())
    assert set((await erasure(store).plan()).values()) == {0}


async def test_a_message_that_comes_while_passes_run_is_erased_by_a_later_one(store):
    """Seen to fail with a single pass."""
    await use(store, "s1")
    own = Sessions(store)
    left = 3

    async def end(session):
        nonlocal left
        await own.delete(session)
        if left:
            left -= 1
            await use(store, f"again-{left}")

    receipt = await Erasure(store, "ann", end=end).run("op")
    assert (receipt.passes, receipt.is_whole) == (4, True)
    assert await store.at(T0).list("app", "ann") == []


async def test_the_receipt_of_an_erasure_that_was_stopped_counts_all(store):
    """As much as the receipt of one that was not. Seen to fail with a receipt of the last call."""
    await fill(store, USER, MARK)
    whole = await erasure(store).run("op")
    await fill(store, USER, MARK)
    own, left = Sessions(store), 11

    async def end(session):
        nonlocal left
        left -= 1
        if not left:
            raise StoreUnavailableError("down")
        await own.delete(session)

    with pytest.raises(StoreUnavailableError):
        await Erasure(store, USER, end=end).run("op")
    receipt = await erasure(store).run("op")
    assert receipt.erased == whole.erased
    newest, *_ = [act for act in await store.acts(newest=50) if act.action == "erased"]
    assert newest.detail["sessions"] == whole.erased["sessions"]
    assert (await erasure(store).run("op")).erased == {}, "nothing is counted twice"


async def test_an_erasure_ends_although_the_user_never_stops(store):
    own, number = Sessions(store), 0

    async def end(session):
        nonlocal number
        number += 1
        await own.delete(session)
        await create(store, f"s{number}")

    await create(store, "s0")
    receipt = await Erasure(store, "ann", end=end).run("op")
    assert (receipt.passes, receipt.is_whole) == (MOST_PASSES, False)


async def test_messages_race_with_an_erasure_and_are_erased_refused_or_whole(store):
    """A session that is left has every message that was acknowledged since it was made."""
    for number in range(12):
        await use(store, f"s{number}")
    others = SessionKey("app", "bob", "kept")
    revision = await create(store, others)
    begun, stored = asyncio.Event(), {}

    async def talk(name):
        for turn in range(30):
            try:
                session = await store.at(T0).read(key(name))
                if session is None:
                    await create(store, name)
                    stored[name] = 0
                    continue
                await store.at(T0).append(key(name), message(f"t{turn}", at=T0), session.revision)
                stored[name] = stored.get(name, 1) + 1
                begun.set()
            except NoSuchSessionError:
                stored[name] = 0

    async def talk_of_others():
        nonlocal revision
        for turn in range(30):
            event = message(f"o{turn}", at=T0)
            revision = (await store.at(T0).append(others, event, revision)).value.revision

    async def erase():
        await begun.wait()
        return await erasure(store, "ann").run("op")

    await asyncio.gather(erase(), talk_of_others(), *(talk(f"s{n}") for n in range(12)))
    assert len((await store.at(T0).read(others)).events) == 30
    for number in range(12):
        session = await store.at(T0).read(key(f"s{number}"))
        assert session is None or len(session.events) == stored[f"s{number}"]
    receipt = await erasure(store, "ann").run("op")
    assert receipt.is_whole
    assert set((await erasure(store, "ann").plan()).values()) == {0}
    assert len((await store.at(T0).read(others)).events) == 30


async def test_wrong_names_are_refused(store):
    for user in ("", "x" * 129, "\0"):
        with pytest.raises(InvalidValueError):
            erasure(store, user)


async def test_of_nobody_nothing_is_erased(store):
    await fill(store, OTHER, "others")
    before = await everything(store, OTHER)
    receipt = await erasure(store, "nobody").run("op")
    assert (receipt.erased, receipt.passes) == ({}, 0)
    assert await everything(store, OTHER) == before


async def test_what_is_on_hold_stays_and_is_reported(store):
    """A session, and then the user with all sessions to come.

    Seen to fail without the look at the holds, and where only the sessions are spared.
    """
    keys = await fill(store, USER, MARK)
    artifacts = Artifacts(InMemoryArtifactService())
    await store.at(T0).put_on_hold(keys[0], reason="a dispute", by="op")
    before = await store.at(T0).read(keys[0])
    state = await store.user_state(keys[0].app_name, USER)
    assert (await erasure(store).plan())["on_hold"] == 1
    receipt = await erasure(store, artifacts=artifacts).run("op")
    assert receipt.is_whole
    assert receipt.erased["sessions"] == 11
    assert receipt.remains[0].startswith(f"on hold: 1 session of app {keys[0].app_name}")
    assert await store.at(T0).read(keys[0]) == before
    assert await store.user_state(keys[0].app_name, USER) == state
    assert await store.user_state(keys[-1].app_name, USER) == {}
    await store.at(T0).put_on_hold(SessionKey("", USER, ""), reason="a dispute", by="op")
    assert "sessions" not in (await erasure(store).run("op")).erased
    await store.at(T0).release_hold(SessionKey("", USER, ""), by="op")
    await store.at(T0).release_hold(keys[0], by="op")
    assert (await erasure(store).run("op")).erased["sessions"] == 1
    assert await everything(store, USER) == [{}, {}]
