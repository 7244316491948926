"""The second line of defence: the session service finds no session of another user."""

import asyncio

import pytest
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event

from lapse.adk.service import LapseSessionService
from lapse.auth.principals import Principal, Role, acting, current_principal
from lapse.core.errors import NoSuchRunError, NoSuchSessionError
from lapse.core.keys import SessionKey
from lapse.runs.metrics import RunMetrics
from lapse.runs.rules import RunLimits
from lapse.runs.run import Asked
from lapse.runs.runs import Runs
from lapse.runs.store import RunStore
from lapse.store import store_from_url
from lapse.telemetry.metrics import Metrics
from parts import Intercepted, store_with_parts

KEY = SessionKey("app", "ann", "s")
ANN, BOB = Principal("ann"), Principal("bob")


@pytest.fixture
async def service():
    async with LapseSessionService(store_with_parts("sqlite:///:memory:")) as service:
        yield service


@pytest.fixture
async def session(service):
    return await service.create_session(
        app_name="app", user_id="ann", session_id="s", state={"user:name": "Ann"}
    )


async def test_the_session_of_another_user_does_not_exist_for_a_user(service, session, monkeypatch):
    """Seen to fail: `is_foreign` always false; each check in turn taken away."""
    metrics = Metrics()
    runs = Runs(service, RunLimits(), RunMetrics(metrics.registry, metrics.apps))
    await service.store.begin_run(KEY, "r", max_per_user=1)
    monkeypatch.setattr(RunStore, "cancel_run", None)  # it is not even asked
    with acting(BOB):
        assert await service.get_session(app_name="app", user_id="ann", session_id="s") is None
        for user in ("ann", None):
            listed = await service.list_sessions(app_name="app", user_id=user)
            assert listed.sessions == []
        assert await service.list_with_lifecycle(app_name="app", user_id="ann") == []
        assert await service.get_user_state(app_name="app", user_id="ann") == {}
        await service.delete_session("app", "ann", "s")
        with pytest.raises(SessionNotFoundError):
            await service.append_event(session, Event(author="user"))
        for asked in (
            service.lifecycle(KEY),
            service.amend(KEY, metadata={}),
            service.extend(KEY),
            service.resurrect(KEY),
            service.ensure_legacy_session(KEY._replace(session_id="new")),
            service.create_session(app_name="app", user_id="ann"),
            runs.begin(Asked(KEY, None)),
        ):
            with pytest.raises(NoSuchSessionError):
                await asked
        for asked in (runs.find(KEY), runs.cancel(KEY, "r")):
            with pytest.raises(NoSuchRunError):
                await asked
    with acting(ANN):
        listed = await service.list_sessions(app_name="app")
        assert (await runs.find(KEY, "r")).in_flight
    assert [one.id for one in listed.sessions] == ["s"]


@pytest.mark.parametrize(
    "who", [None, ANN, Principal("x", Role.SERVICE), Principal("x", Role.OPERATOR)], ids=str
)
async def test_a_session_exists_for_its_owner_and_those_who_act_for_them(service, session, who):
    with acting(who):
        assert await service.get_session(app_name="app", user_id="ann", session_id="s")
        assert (await service.lifecycle(KEY)).key == KEY
        for user in ("ann", None):
            listed = await service.list_sessions(app_name="app", user_id=user)
            assert [one.id for one in listed.sessions] == ["s"]


async def test_a_user_who_lists_the_sessions_of_all_users_gets_only_their_own(service, session):
    await service.create_session(app_name="app", user_id="bob", session_id="b")
    with acting(BOB):
        listed = await service.list_sessions(app_name="app")
    assert [one.id for one in listed.sessions] == ["b"]


async def test_background_work_that_a_request_started_has_no_principal():
    seen, heard = [], asyncio.Event()

    class Asked(Intercepted):
        async def around(self, name, do):
            if name == "time_to_next":
                seen.append(current_principal())
                heard.set()
            return await do()

    service = LapseSessionService(Asked(store_from_url("sqlite:///:memory:")), sweep=True)
    async with service:
        with acting(ANN):
            await service.create_session(app_name="app", user_id="ann")
        await heard.wait()
    assert set(seen) == {None}
