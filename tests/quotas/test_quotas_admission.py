"""Creations and resurrections through the service: limits, quotas, reuse, on every store."""

import asyncio
import itertools
from datetime import timedelta

import pytest

from adk_builders import message_event, state_event
from backends import T0, Clocked
from lapse.adk.errors import StaleSessionError
from lapse.adk.service import LapseSessionService
from lapse.auth.addresses import coming_from, parse_address
from lapse.auth.principals import Principal, Role, acting
from lapse.core.errors import (
    HeldEventsFullError,
    InvalidValueError,
    StoreUnavailableError,
    TooManyCreatesError,
)
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, ChangeKind, Status
from lapse.quotas.rules import Drawer, Quotas

HOME = parse_address("203.0.113.9")


@pytest.fixture
def make_service(store):
    """A function that makes a service with quotas; `seen` lists its changes."""

    def make(store=store, **quotas):
        service = LapseSessionService(store, quotas=Quotas(**quotas))
        service.seen = []
        service.feed.subscribe(service.seen.append)
        return service

    return make


async def create(service, user="ann", **more):
    return (await service.create_session(app_name="app", user_id=user, **more)).id


async def created(service, times, user="ann"):
    """Return how many of so many creations succeeded."""
    asked = (create(service, user) for _ in range(times))
    results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [error for error in results if isinstance(error, TooManyCreatesError)]
    let_in = [result for result in results if isinstance(result, str)]
    assert len(let_in) + len(refused) == times, results
    return len(let_in)


async def test_creations_are_not_limited_without_quotas(make_service):
    service = make_service()
    with coming_from(HOME):
        assert await created(service, 40) == 40


async def test_a_user_over_the_rate_limit_is_refused_and_others_are_not(make_service):
    service = make_service(creates_per_user=4)
    assert await created(service, 9) == 4
    with pytest.raises(TooManyCreatesError, match=r"this user has .* 4 a minute") as refused:
        await create(service)
    assert timedelta(0) < refused.value.retry_after <= timedelta(seconds=15)
    assert await created(service, 9, "bob") == 4
    assert service.admission.refused == {Drawer.USER: 11}


async def test_an_address_over_the_rate_limit_is_refused_for_every_user(make_service):
    service = make_service(creates_per_address=4)
    with coming_from(HOME):
        assert await created(service, 3) + await created(service, 3, "bob") == 4
    with coming_from(parse_address("203.0.113.8")):
        assert await created(service, 3) == 3
    assert await created(service, 9) == 9
    assert service.admission.refused == {Drawer.ADDRESS: 2}


async def test_every_user_is_refused_over_the_total_rate_limit(make_service):
    service = make_service(creates=4)
    assert await created(service, 3) + await created(service, 3, "bob") == 4
    assert service.admission.refused == {Drawer.ALL: 2}


@pytest.mark.parametrize(("role", "let_in"), [(Role.USER, 2), (Role.SERVICE, 5)])
async def test_creations_by_a_service_do_not_count_for_its_address(make_service, role, let_in):
    service = make_service(creates_per_address=2, waiting_per_address=2)
    with coming_from(HOME), acting(Principal("pat", role)):
        assert await created(service, 5, "pat") == let_in
    assert len(await service.store.list("app", "pat")) == let_in


async def test_replicas_share_one_rate_limit(make_service, two_stores):
    """Seen to fail with turns that each replica keeps for itself."""
    one, other = (make_service(store, creates_per_user=3) for store in two_stores)
    counts = await asyncio.gather(created(one, 20), created(other, 20))
    assert sum(counts) == 3


async def test_a_caller_that_was_refused_is_refused_again_without_asking_the_store(
    make_service, monkeypatch
):
    service = make_service(creates_per_user=1)
    assert await created(service, 2) == 1

    async def never(*_args, **_kwargs):
        raise AssertionError("the store was asked")

    monkeypatch.setattr(service.admission._store, "draw", never)
    assert await created(service, 5) == 0


async def test_waiting_sessions_over_the_quota_expire_and_the_change_is_published(make_service):
    service = make_service(waiting_per_user=2)
    ids = [await create(service) for _ in range(4)]
    await create(service, "bob")
    expired = [c.record.key.session_id for c in service.seen if c.kind is ChangeKind.EXPIRED]
    assert expired == ids[:2]
    assert service.admission.exceeded == 2


async def test_waiting_sessions_over_the_quota_of_an_address_expire(make_service):
    service = make_service(waiting_per_address=2)
    with coming_from(HOME):
        for user in ("u1", "u2", "u3", "u4"):
            await create(service, user)
    assert [bool(await service.store.list("app", f"u{n}")) for n in range(1, 5)] == [
        False,
        False,
        True,
        True,
    ]


async def test_a_creation_succeeds_even_if_expiring_the_excess_fails(make_service, monkeypatch):
    service = make_service(waiting_per_user=1)

    async def fails(*_args, **_kwargs):
        raise StoreUnavailableError("away")

    await create(service)
    monkeypatch.setattr(service.admission._store, "expire_excess", fails)
    await create(service)
    assert len(await service.store.list("app", "ann")) == 2
    monkeypatch.undo()
    await create(service)
    assert len(await service.store.list("app", "ann")) == 1


async def test_the_legacy_endpoint_counts_a_creation_and_not_a_session_that_it_finds(make_service):
    service = make_service(creates_per_user=2, waiting_per_user=1)
    for name in ("s1", "s1", "s2", "s2"):
        await service.ensure_legacy_session(SessionKey("app", "ann", name))
    with pytest.raises(TooManyCreatesError):
        await service.ensure_legacy_session(SessionKey("app", "ann", "s3"))
    assert [c.kind for c in service.seen] == [
        ChangeKind.CREATED,
        ChangeKind.CREATED,
        ChangeKind.EXPIRED,
    ]


# Resurrections.


async def expired(service, count, user="ann"):
    """Create sessions, each once the last one is expired; return their keys."""
    keys = []
    for _ in range(count):
        keys.append(SessionKey("app", user, await create(service, user)))
        await service.expire(keys[-1])
    return keys


async def resurrected(service, keys, cause=Cause.REQUEST):
    """Resurrect sessions one by one; return how many were refused."""
    refused = 0
    for key in keys:
        try:
            assert (await service.resurrect(key, cause=cause)).status is Status.WAITING
        except TooManyCreatesError:
            refused += 1
    return refused


async def waiting(service, user="ann"):
    return [found.key.session_id for found in await service.store.list("app", user)]


async def test_resurrections_keep_to_the_quota_of_waiting_sessions(make_service):
    """Seen to fail with a resurrection that expires nothing: 8 waited."""
    service = make_service(waiting_per_user=3)
    keys = await expired(service, 8)
    assert await resurrected(service, keys) == 0
    assert sorted(await waiting(service)) == sorted(key.session_id for key in keys[-3:])
    assert service.admission.exceeded == 5


async def test_resurrections_by_two_servers_at_once_keep_to_the_quota(make_service, two_stores):
    one, other = (make_service(store, waiting_per_user=3) for store in two_stores)
    keys = await expired(one, 12)
    await asyncio.gather(resurrected(one, keys[:6]), resurrected(other, keys[6:]))
    assert len(await waiting(one)) == 3


async def test_resurrections_keep_to_the_quota_of_an_address(make_service):
    service = make_service(waiting_per_address=2)
    with coming_from(HOME):
        keys = [key for user in ("u1", "u2", "u3") for key in await expired(service, 1, user)]
        await resurrected(service, keys)
    assert [len(await waiting(service, f"u{n}")) for n in (1, 2, 3)] == [0, 1, 1]


async def test_resurrections_draw_from_the_same_rate_limit_as_creations(make_service):
    """Seen to fail with a resurrection that draws nothing."""
    service = make_service(creates_per_user=4)
    keys = await expired(service, 3)
    assert await resurrected(service, keys) == 2
    assert await created(service, 1) == 0
    assert service.admission.refused == {Drawer.USER: 3}


async def test_to_resurrect_a_session_that_lives_counts_for_nothing(make_service):
    service = make_service(creates_per_user=2)
    key = SessionKey("app", "ann", await create(service))
    assert await resurrected(service, [key] * 5) == 0
    assert await created(service, 2) == 1


async def test_a_run_is_never_refused_and_its_session_is_one_beyond_the_quota(make_service, store):
    """Seen to fail when a run draws, and when it expires nothing."""
    seconds = itertools.count()  # the machine's clock may be set back meanwhile
    clocked = Clocked(store, lambda: T0 + timedelta(seconds=next(seconds)))
    service = make_service(clocked, waiting_per_user=2, creates_per_user=10)
    keys = await expired(service, 10)
    assert await resurrected(service, keys, Cause.RUN) == 0
    assert sorted(await waiting(service)) == sorted(key.session_id for key in keys[-3:])


@pytest.mark.parametrize(("role", "refusals"), [(Role.SERVICE, 3), (Role.OPERATOR, 0)])
async def test_what_an_operator_resurrects_counts_for_nobody(make_service, role, refusals):
    service = make_service(waiting_per_user=1, creates_per_user=3)
    keys = await expired(service, 3)
    with acting(Principal("op", role)):
        refused = await resurrected(service, keys)
    assert (refused, len(await waiting(service))) == (refusals, 3 - refusals)


# Changes of state before the first message.


async def noted(service, sizes, principal=None):
    """Append changes of state of these sizes to a new session; return its status."""
    session = await service.create_session(app_name="app", user_id="ann")
    with acting(principal):
        for number, size in enumerate(sizes):
            delta = {f"k{number}": "x" * size}
            await service.append_event(session, state_event(delta, id=f"n{number}"))
    return (await service.lifecycle(SessionKey("app", "ann", session.id))).status


LARGE = [300 * 1024]
MANY = [1] * 65


@pytest.mark.parametrize("quota", ["waiting_per_user", "waiting_per_address"])
@pytest.mark.parametrize("sizes", [LARGE, MANY])
async def test_under_a_quota_changes_of_state_never_make_a_session_used(make_service, quota, sizes):
    """Seen to fail when an event that cannot be held counts as use: the session is for good."""
    service = make_service(**{quota: 5})
    with pytest.raises(HeldEventsFullError, match="at most 64 changes, of 262144 bytes"):
        await noted(service, sizes)
    (session,) = await service.store.list("app", "ann")
    assert (await service.store.lifecycle(session.key)).status is Status.WAITING
    kept = await service.store.read(session.key)
    assert [event.id for event in kept.events] == [f"n{n}" for n in range(len(sizes) - 1)]


@pytest.mark.parametrize("role", [Role.SERVICE, Role.OPERATOR])
async def test_what_services_and_operators_change_counts_as_use(make_service, role):
    service = make_service(waiting_per_user=5)
    assert await noted(service, LARGE, Principal("op", role)) is Status.USED
    assert await noted(service, MANY, Principal("op", role)) is Status.USED


async def test_without_a_quota_large_changes_count_as_use(make_service):
    assert await noted(make_service(creates_per_user=5), LARGE) is Status.USED


async def test_a_refusal_to_hold_more_is_told_from_other_reasons(make_service):
    """Seen to fail when every event that is not held is refused as one too many."""
    service = make_service(waiting_per_user=5)
    session = await service.create_session(app_name="app", user_id="ann")
    stale = session.model_copy(deep=True)
    event = state_event({"k": "v"}, id="n1")
    await service.append_event(session, event)
    with pytest.raises(StaleSessionError):
        await service.append_event(stale, state_event({"k": "w"}, id="n2"))
    await service.append_event(session, event)
    with pytest.raises(HeldEventsFullError):
        await service.append_event(session, state_event({"k": "x" * LARGE[0]}))
    await service.append_event(session, message_event("hello"))
    await service.append_event(session, state_event({"k": "x" * LARGE[0]}))


# The TTL that is asked for.


async def asked_for(service, minutes, role=Role.USER):
    """Create a session with a TTL, as somebody; return the TTL in minutes."""
    with acting(None if role is None else Principal("ann", role)):
        made = await create(service, ttl_minutes=minutes)
        record = await service.lifecycle(SessionKey("app", "ann", made))
        return record.ttl / timedelta(minutes=1)


async def test_a_ttl_that_a_user_asks_for_is_at_most_the_restore_time(make_service):
    """Seen to fail with a bound of 30 days for everybody."""
    assert await asked_for(make_service(), 24 * 60) == 24 * 60
    with pytest.raises(InvalidValueError, match=r"ttl_minutes: .* at most 1440 minutes, not 1441"):
        await asked_for(make_service(), 1441)


@pytest.mark.parametrize("role", [Role.SERVICE, Role.OPERATOR, None])
async def test_others_than_users_may_ask_for_thirty_days(make_service, role):
    assert await asked_for(make_service(), 43_200, role) == 43_200
    with pytest.raises(InvalidValueError, match=r"at most 43200 minutes \(30 days\)"):
        await asked_for(make_service(), 43_201, role)


async def test_a_longer_ttl_of_the_settings_is_the_bound(store):
    service = LapseSessionService(store, ttl=timedelta(days=2))
    assert await asked_for(service, 2 * 24 * 60) == 2 * 24 * 60
    with pytest.raises(InvalidValueError, match="at most 2880 minutes"):
        await asked_for(service, 2881)


# Reuse.


async def test_a_creation_with_reuse_returns_the_newest_empty_session(make_service):
    service = make_service(creates_per_user=2)
    await create(service)
    newest = await create(service)
    assert [await create(service, reuse=True) for _ in range(5)] == [newest] * 5
    assert service.admission.reused == 5
    assert [change.kind for change in service.seen[2:]] == [ChangeKind.EXTENDED] * 5


async def test_reuse_may_be_the_default_and_a_creation_may_decline_it(make_service):
    service = make_service(reuse=True)
    one = await create(service)
    assert await create(service) == one
    assert await create(service, "bob") != one
    assert await create(service, reuse=False) != one


async def test_a_creation_with_an_id_or_state_reuses_no_session(make_service):
    service = make_service(reuse=True)
    one = await create(service)
    assert await create(service, session_id="mine") == "mine"
    assert await create(service, state={"a": 1}) not in {one, "mine"}
    described = await create(service, metadata={"m": 1})
    assert described != one
    assert await create(service, metadata={"m": 1}) == described
    assert await create(service, state={}, session_id=" ") == one


async def test_a_reused_session_looks_new_to_adk(make_service):
    service = make_service(reuse=True)
    made = await service.create_session(app_name="app", user_id="ann")
    await create(service, "bob", state={"app:tone": "dry"}, session_id="x")
    there = await service.create_session(app_name="app", user_id="ann", ttl_minutes=90)
    assert (there.id, there.events) == (made.id, [])
    assert there.state == {"app:tone": "dry"}
    record = await service.lifecycle(SessionKey("app", "ann", made.id))
    assert record.ttl == timedelta(minutes=90)


async def test_a_value_for_reuse_that_is_not_a_boolean_is_refused(make_service):
    with pytest.raises(InvalidValueError, match="reuse: must be true or false"):
        await create(make_service(), reuse="yes")
