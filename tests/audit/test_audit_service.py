"""The service records the principal of each act."""

from datetime import timedelta

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions

from lapse.audit.request import one_request
from lapse.auth.principals import Principal, Role, acting
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status

KEY = SessionKey("app", "ann", "s1")
NAMED = {"app_name": "app", "user_id": "ann", "session_id": "s1"}


async def acts(lapse):
    return [(act.by, act.action) for act in await lapse.store.acts(newest=99)][::-1]


@pytest.mark.parametrize("role", list(Role))
async def test_the_acts_of_services_and_operators_are_recorded_and_of_users_only_deletions(
    lapse, role
):
    """A user cannot flood the log: a deletion needs a creation, and nothing is left of it."""
    with acting(Principal("ann", role)):
        await lapse.create_session(**NAMED)
        await lapse.amend(KEY, ttl=timedelta(minutes=5))
        assert (await lapse.expire(KEY)).status is Status.EXPIRED
        await lapse.resurrect(KEY)
        await lapse.delete_session(**NAMED)
    done = ["amended", "expired", "resurrected", "deleted"]
    recorded = done[-1:] if role is Role.USER else done
    assert await acts(lapse) == [("ann", action) for action in recorded]


@pytest.mark.parametrize("role", list(Role))
async def test_an_extension_by_a_user_is_not_recorded_and_one_by_an_operator_is(lapse, role):
    await lapse.create_session(**NAMED)
    with acting(Principal("ann", role)):
        await lapse.extend(KEY)
    assert await acts(lapse) == [("ann", "extended")] * (role is Role.OPERATOR)


async def test_a_resurrection_by_a_run_is_not_recorded(lapse):
    await lapse.create_session(**NAMED)
    with acting(Principal("ann", Role.SERVICE)):
        await lapse.expire(KEY)
        await lapse.resurrect(KEY, cause=Cause.RUN)
    assert await acts(lapse) == [("ann", "expired")]


async def test_outside_a_request_each_append_of_a_service_is_recorded(lapse):
    session = await lapse.create_session(**NAMED)
    with acting(Principal("bot", Role.SERVICE)):
        for number in range(2):
            actions = EventActions(state_delta={"number": number})
            await lapse.append_event(session, Event(author="bot", actions=actions))
        with one_request():
            for _ in range(2):
                await lapse.append_event(session, Event(author="bot", actions=actions))
    with acting(Principal("ann")):
        await lapse.append_event(session, Event(author="ann", actions=actions))
    assert await acts(lapse) == [("bot", "state_changed")] * 3


async def test_nothing_is_recorded_without_authentication(lapse):
    await lapse.create_session(**NAMED)
    await lapse.expire(KEY)
    await lapse.delete_session(**NAMED)
    assert await acts(lapse) == []
