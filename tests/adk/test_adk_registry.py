"""Lapse in ADK's service registry: `services.py`, `services.yaml`, `--session_service_uri`."""

from __future__ import annotations

import sys
from datetime import timedelta

import pytest
from google.adk.cli.service_registry import get_service_registry, load_services_module
from google.adk.sessions.base_session_service import BaseSessionService

from adk_builders import APP, USER, create_session, eventually, get_session, message_event
from backends import TTL, create, levels, use
from lapse import LapseSessionService, session_service
from lapse.core.clock import utc_now
from lapse.core.errors import InvalidValueError, NoSuchSessionError, SettingsError
from lapse.core.keys import SessionKey
from lapse.sweep.rules import BrakeReason
from parts import Store

SERVICES = {
    "services.py": """
from google.adk.cli.service_registry import get_service_registry
from lapse import session_service

get_service_registry().register_session_service("lapse", session_service)
""",
    "services.yaml": """
services:
  - scheme: lapse
    type: session
    class: lapse.session_service
""",
}


@pytest.fixture(autouse=True)
def _restore_registry(tmp_path, monkeypatch):
    """Restore the loaded modules and the registry after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "services", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    factories = get_service_registry()._session_factories
    monkeypatch.setattr(get_service_registry(), "_session_factories", dict(factories))


@pytest.fixture(params=SERVICES)
def registry(request, tmp_path):
    (tmp_path / request.param).write_text(SERVICES[request.param], encoding="utf-8")
    load_services_module(str(tmp_path))
    sys.modules.pop("services", None)
    return get_service_registry()


async def test_a_uri_behind_the_scheme_names_the_store(registry, tmp_path):
    uri = f"lapse:sqlite:///{tmp_path}/chats.db"
    service = registry.create_session_service(uri, agents_dir=str(tmp_path))
    assert isinstance(service, LapseSessionService)
    assert isinstance(service, BaseSessionService)
    session = await create_session(service)
    await service.append_event(session, message_event())
    assert (await get_session(service, session.id)).events == session.events
    await service.close()
    assert (tmp_path / "chats.db").exists()


@pytest.mark.parametrize("uri", ["lapse:", "lapse://"])
async def test_the_settings_name_the_store_if_the_uri_does_not(
    registry, tmp_path, monkeypatch, uri
):
    monkeypatch.setenv("LAPSE_STORE_URL", "sqlite:///from-settings.db")
    service = registry.create_session_service(uri, agents_dir=str(tmp_path))
    await create_session(service)
    await service.close()
    assert (tmp_path / "from-settings.db").exists()


async def test_the_service_sweeps_by_itself_and_closes_promptly(registry, monkeypatch):
    monkeypatch.setenv("SESSION_CLEANUP_TTL_MINUTES", "0.0005")
    monkeypatch.setenv("LAPSE_RESTORE_HOURS", "0")
    service = registry.create_session_service("lapse:sqlite:///:memory:")
    session = await create_session(service)

    async def purged():
        return await levels(Store(service.store)) == {}

    await eventually(purged)
    with pytest.raises(NoSuchSessionError):
        await service.lifecycle(SessionKey(APP, USER, session.id))
    await service.close()


async def test_the_sweeper_of_the_service_has_the_brakes_of_the_settings(monkeypatch):
    """Seen to fail with a sweeper that has the default brakes: it purged all four."""
    monkeypatch.setenv("LAPSE_BRAKE_SESSIONS", "3")
    monkeypatch.setenv("LAPSE_BRAKE_SHARE", "0.1")
    long_ago = utc_now() - timedelta(days=2)
    async with session_service("lapse:sqlite:///:memory:") as service:
        store = Store(service.store)
        for number in range(4):
            await create(store, f"due{number}", now=long_ago)
        await store.at(long_ago + TTL).expire_due(4)
        for number in range(6):
            await use(store, f"used{number}", now=utc_now())

        async def swept():
            return (await store.overview(since=timedelta(0))).swept_at is not None

        await create_session(service)  # the first write starts the sweeper
        await eventually(swept)
        brake = await store.brake()
    assert brake is not None
    assert (brake.reason, brake.sessions) == (BrakeReason.SHARE, 4)


def test_an_unknown_store_is_refused_by_name(registry):
    with pytest.raises(InvalidValueError, match="store URL"):
        registry.create_session_service("lapse:mysql://somewhere/db")


def test_wrong_settings_stop_the_registration(registry, monkeypatch):
    monkeypatch.setenv("SESSION_CLEANUP_TTL_MINUTES", "soon")
    with pytest.raises(SettingsError, match="SESSION_CLEANUP_TTL_MINUTES"):
        registry.create_session_service("lapse:sqlite:///:memory:")


@pytest.mark.parametrize(
    ("name", "value"), [("LAPSE_AUTH", "header"), ("LAPSE_APP_STATE_BY", "agents")]
)
def test_what_adks_own_server_cannot_refuse_is_not_registered(registry, monkeypatch, name, value):
    """Seen to fail with a registration that goes on as if the setting took effect."""
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("LAPSE_AUTH_PROXIES", "127.0.0.1")
    with pytest.raises(InvalidValueError, match=f"{name}: is set, but ADK's own server"):
        registry.create_session_service("lapse:sqlite:///:memory:")
