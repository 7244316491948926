"""What an application that Lapse is mounted in gets from the settings, and what it warns of."""

from __future__ import annotations

import logging
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from google.adk.runners import Runner

from backends import create
from lapse import (
    Authentication,
    ConnectionOptions,
    HeaderAuthenticator,
    HeaderOptions,
    Lapse,
    LapseSessionService,
    Policy,
    Quotas,
    Rules,
    SessionKey,
    Settings,
    Targets,
    TtlPolicy,
    mount,
    store_from_url,
)
from lapse.core.clock import utc_now
from lapse.core.errors import SettingsError
from lapse.core.lifecycle import Status
from lapse.demo.agents.concierge.agent import root_agent
from parts import store_with_parts

MEMORY = "sqlite:///:memory:"
DAY = timedelta(days=1)

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


async def test_a_mounted_service_has_the_ttl_the_restore_time_and_the_quotas_of_the_settings(
    monkeypatch,
):
    """Seen to fail before `default_to`: 30 minutes, a day and no quota."""
    monkeypatch.setenv("SESSION_CLEANUP_TTL_MINUTES", "0.3")
    monkeypatch.setenv("LAPSE_RESTORE_HOURS", "7")
    monkeypatch.setenv("LAPSE_WAITING_PER_USER", "3")
    app, service = FastAPI(), LapseSessionService(store_from_url(MEMORY))
    mount(app, service, apps=["shop"])
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        session = await service.create_session(app_name="shop", user_id="ada")
        path = f"/apps/shop/users/ada/sessions/{session.id}/lifecycle"
        assert (await client.get(path)).json()["ttlMinutes"] == 0.3
        for _ in range(3):
            await service.create_session(app_name="shop", user_id="ada")
        assert (await client.get(path)).json()["status"] == "expired"
    assert service.store.rules.horizon == timedelta(hours=7)


async def test_nothing_expires_in_a_mounted_service_while_clean_up_is_switched_off(monkeypatch):
    """Seen to fail with the store's own rules: the session reads as expired."""
    monkeypatch.setenv("SESSION_CLEANUP_ENABLED", "false")
    store, key = store_with_parts(MEMORY), SessionKey("shop", "ada", "s")
    app, service = FastAPI(), LapseSessionService(store)
    mount(app, service, apps=["shop"])
    async with app.router.lifespan_context(app):
        await create(store, key, now=utc_now() - DAY)
        assert (await service.lifecycle(key)).status is Status.WAITING
        found = await service.get_session(app_name="shop", user_id="ada", session_id="s")
        assert found is not None


def test_what_a_service_and_its_store_were_given_wins_over_the_settings(monkeypatch):
    monkeypatch.setenv("SESSION_CLEANUP_TTL_MINUTES", "20")
    monkeypatch.setenv("LAPSE_TTL_POLICY", "adaptive")
    monkeypatch.setenv("LAPSE_RESTORE_HOURS", "7")
    monkeypatch.setenv("LAPSE_WAITING_PER_USER", "3")
    monkeypatch.setenv("LAPSE_POOL_SIZE", "3")
    url = "postgresql://nobody@127.0.0.1:1/none"
    store = store_from_url(url, Rules(horizon=2 * DAY), ConnectionOptions(pool_size=4))
    quotas = Quotas(waiting_per_user=9)
    service = LapseSessionService(store, ttl=timedelta(minutes=5), quotas=quotas)
    mount(FastAPI(), service, apps=["shop"])
    assert service.policy.default == timedelta(minutes=5)
    assert service.policy.mode is Policy.FIXED
    assert service.store.rules.horizon == service.policy.targets.horizon == 2 * DAY
    assert store._connections._options.pool_size == 4
    assert service.admission.quotas == quotas


def test_a_policy_that_a_service_was_given_stays(monkeypatch):
    monkeypatch.setenv("SESSION_CLEANUP_TTL_MINUTES", "20")
    service = LapseSessionService(store_from_url(MEMORY))
    policy = TtlPolicy(service.store, service.feed, Targets.around(timedelta(minutes=5), DAY))
    service = LapseSessionService(service.store, feed=service.feed, policy=policy)
    mount(FastAPI(), service, Settings(ttl=timedelta(minutes=10)), apps=["shop"])
    assert service.policy is policy


WAYS = {
    "mount": lambda: mount(FastAPI(), LapseSessionService(store_from_url(MEMORY)), apps=["shop"]),
    "mount with settings": lambda: mount(
        FastAPI(), LapseSessionService(store_from_url(MEMORY)), Settings(ttl=DAY), apps=["shop"]
    ),
    "Lapse": lambda: Lapse(MEMORY),
    "Lapse with settings": lambda: Lapse(MEMORY, Settings(ttl=DAY)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_a_misspelt_setting_is_refused_by_every_way_in(way, monkeypatch):
    """Seen to fail with `Settings(…)` in hand, which looked at no other names."""
    monkeypatch.setenv("LAPSE_TTL_MINUTES", "5")
    with pytest.raises(SettingsError, match="LAPSE_TTL_MINUTES is not a setting; did you mean"):
        way()


# Open routes.


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if "nobody is" in record.getMessage()]


def adk_app(tmp_path, **options):
    from google.adk.cli.fast_api import get_fast_api_app

    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "agent.py").write_text("")
    return get_fast_api_app(
        agents_dir=str(tmp_path), session_service_uri="memory://", **{"web": False} | options
    )


def test_one_warning_names_the_routes_that_are_open_to_everybody(caplog, tmp_path):
    """Seen to fail without the call of `warn_of_open_routes`."""
    app = adk_app(tmp_path)
    app.add_api_route("/api/mine", lambda: "mine")
    mount(app, LapseSessionService(store_from_url(MEMORY)))
    (warning,) = warnings_of(caplog)
    named = warning.partition(": ")[2].partition(". ")[0].split(", ")
    session = "/apps/{app_name}/users/{user_id}/sessions/{session_id}"
    expected = {"/run", "/run_sse", "/run_live"}
    expected |= {session, f"{session}/run", f"{session}/lifecycle", f"{session}/lifecycle/events"}
    assert expected <= set(named)
    assert {"/livez", "/list-apps", "/metrics", "/lapse/client.js", "/api/mine"}.isdisjoint(named)
    assert "set LAPSE_AUTH" in warning
    assert "docs/security.md" in warning


def test_the_developer_routes_are_named(caplog, tmp_path):
    mount(adk_app(tmp_path, web=True), LapseSessionService(store_from_url(MEMORY)))
    (warning,) = warnings_of(caplog)
    assert "/dev/apps/" in warning


def test_the_routes_of_runners_are_named(caplog):
    service = LapseSessionService(store_from_url(MEMORY))
    runner = Runner(app_name="shop", agent=root_agent, session_service=service)
    mount(FastAPI(), service, runners=[runner])
    (warning,) = warnings_of(caplog)
    assert "/apps/{app_name}/users/{user_id}/sessions/{session_id}/run" in warning


@pytest.mark.parametrize("how", ["argument", "setting"])
def test_an_application_that_authenticates_warns_of_nothing(how, caplog, monkeypatch):
    authentication = None
    if how == "argument":
        authentication = Authentication(HeaderAuthenticator(HeaderOptions("X-User", ())))
    else:
        monkeypatch.setenv("LAPSE_AUTH", "header")
        monkeypatch.setenv("LAPSE_AUTH_HEADER", "X-User")
        monkeypatch.setenv("LAPSE_AUTH_PROXIES", "127.0.0.1")
    service = LapseSessionService(store_from_url(MEMORY))
    mount(FastAPI(), service, apps=["shop"], authentication=authentication)
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(("host", "count"), [("127.0.0.1", 0), ("::1", 0), ("0.0.0.0", 1)])
def test_the_application_of_lapse_serve_warns_if_it_listens_beyond_this_machine(
    host, count, caplog
):
    caplog.set_level(logging.WARNING)
    Lapse(MEMORY).app(host=host)
    assert len(warnings_of(caplog)) == count
