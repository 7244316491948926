"""The service records the principal of each act."""

from datetime import timedelta

import pytest

from lapse.auth.principals import Principal, Role, acting
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status

KEY = SessionKey("app", "ann", "s1")
NAMED = {"app_name": "app", "user_id": "ann", "session_id": "s1"}


async def acts(lapse):
    return [(act.by, act.action) for act in await lapse.store.acts(newest=99)][::-1]


@pytest.mark.parametrize("role", list(Role))
async def test_a_principals_acts_are_recorded_by_name(lapse, role):
    with acting(Principal("ann", role)):
        await lapse.create_session(**NAMED)
        await lapse.amend(KEY, ttl=timedelta(minutes=5))
        assert (await lapse.expire(KEY)).status is Status.EXPIRED
        await lapse.resurrect(KEY)
        await lapse.delete_session(**NAMED)
    done = ["amended", "expired", "resurrected", "deleted"]
    assert await acts(lapse) == [("ann", action) for action in done]


@pytest.mark.parametrize("role", list(Role))
async def test_an_extension_by_a_user_is_not_recorded_and_one_by_an_operator_is(lapse, role):
    await lapse.create_session(**NAMED)
    with acting(Principal("ann", role)):
        await lapse.extend(KEY)
    assert await acts(lapse) == [("ann", "extended")] * (role is Role.OPERATOR)


async def test_a_resurrection_by_a_run_is_not_recorded(lapse):
    await lapse.create_session(**NAMED)
    with acting(Principal("ann")):
        await lapse.expire(KEY)
        await lapse.resurrect(KEY, cause=Cause.RUN)
    assert await acts(lapse) == [("ann", "expired")]


async def test_nothing_is_recorded_without_authentication(lapse):
    await lapse.create_session(**NAMED)
    await lapse.expire(KEY)
    await lapse.delete_session(**NAMED)
    assert await acts(lapse) == []
