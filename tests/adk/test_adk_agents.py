"""`ServedApps`: which apps are served, and how often a loader lists them."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from fastapi import FastAPI

from adk_versions import since_adk
from lapse.adk import agents
from lapse.adk.agents import ServedApps, served_apps
from lapse.adk.private.loaders import agent_loader
from lapse.core.errors import InvalidValueError


class Listing:
    """A loader's list that a test can change, delay or break; it records the calling threads."""

    def __init__(self, *names):
        self.names = list(names)
        self.fault = None
        self.threads = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self):
        self.threads.append(threading.current_thread())
        assert self.goes_on.wait(30)
        if self.fault is not None:
            raise self.fault
        return self.names


@pytest.fixture
def always_stale(monkeypatch):
    """Make every list stale at once."""
    monkeypatch.setattr(agents, "_LIST_TTL", timedelta(0))
    monkeypatch.setattr(agents, "_KNOWN_TTL", timedelta(0))
    monkeypatch.setattr(agents, "_REST", 0)


async def all_of(served, *names):
    return await asyncio.gather(*(served.has(name) for name in names))


async def begun(listing, count):
    while len(listing.threads) < count:  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0.001)


async def test_apps_of_the_given_collections_are_served_and_no_others():
    names = {"shop"}
    served = ServedApps(names, ["help"])
    assert await all_of(served, "shop", "help", "sho", "ghost", "") == [True, True, *[False] * 3]
    names.add("ghost")
    assert await served.has("ghost")


async def test_concurrent_checks_share_one_listing_in_a_thread(monkeypatch):
    """Seen to fail without the lock: twenty listings."""
    monkeypatch.setattr(agents, "_LIST_TTL", timedelta(hours=1))
    listing = Listing("shop")
    served = ServedApps(listing=listing)
    assert await all_of(served, *["ghost"] * 20, "shop") == [*[False] * 20, True]
    assert await all_of(served, *["ghost"] * 20) == [False] * 20
    assert len(listing.threads) == 1
    assert listing.threads[0] is not threading.current_thread()


async def test_a_check_of_a_known_app_does_not_wait_for_a_listing(always_stale):
    """Seen to fail when a known app waits for the lock, as an unknown one does."""
    listing = Listing("shop")
    served = ServedApps(listing=listing)
    assert await served.has("shop")
    listing.goes_on.clear()
    waiting = asyncio.create_task(served.has("ghost"))
    await begun(listing, 2)
    async with asyncio.timeout(10):
        assert await served.has("shop")
    assert not waiting.done()
    listing.goes_on.set()
    assert not await waiting


async def test_an_added_app_is_served_and_a_removed_one_is_not(always_stale):
    listing = Listing("shop")
    served = ServedApps(listing=listing)
    assert await all_of(served, "shop", "help") == [True, False]
    listing.names = ["help"]
    assert await served.has("help")
    assert not await served.has("shop")


async def test_if_listing_fails_the_last_list_stays_and_one_warning_is_logged(always_stale, caplog):
    listing = Listing("shop")
    served = ServedApps(listing=listing)
    assert await served.has("shop")
    listing.fault = FileNotFoundError("the folder is away")
    for _ in range(3):
        assert await all_of(served, "shop", "ghost") == [True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    listing.fault = None
    listing.names = ["help"]
    assert await served.has("help")


async def test_a_first_listing_that_fails_is_an_error_and_is_repeated():
    """Seen to fail when it counts as an empty list: every app is gone for a second."""
    listing = Listing("shop")
    listing.fault = PermissionError("the folder cannot be read")
    served = ServedApps(listing=listing)
    with pytest.raises(PermissionError):
        await served.has("shop")
    listing.fault = None
    assert await served.has("shop")


async def test_a_listing_that_hangs_delays_only_checks_of_unknown_apps(
    always_stale, monkeypatch, caplog
):
    listing = Listing("shop")
    served = ServedApps(listing=listing)
    assert await served.has("shop")
    monkeypatch.setattr(agents, "_TIMEOUT", timedelta(milliseconds=10))
    listing.goes_on.clear()
    assert not await served.has("ghost")
    assert await served.has("shop")
    assert "TimeoutError" in caplog.text
    listing.goes_on.set()


async def test_a_listed_folder_with_the_prefix_of_adks_own_agents_is_not_served():
    served = ServedApps(listing=Listing("__pycache__", "__builder"))
    assert await all_of(served, "__builder", "__pycache__") == [False, False]


@pytest.mark.parametrize("web", [False, True])
@since_adk("2.8", "a folder without an agent is listed")
async def test_a_folder_is_served_if_it_holds_an_agent(tmp_path, web):
    for name in ("shop", "notes", "__own", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("shop", "__own", ".hidden"):
        (tmp_path / name / "agent.py").write_text("")
    (tmp_path / "script.py").write_text("raise AssertionError('it was imported')")
    served = ServedApps(listing=agent_loader(tmp_path, web=web).list_agents)
    assert await served.has("shop")
    for name in ("notes", "script", "__own", ".hidden", "this", "shop.agent", "shop/agent", ".."):
        assert not await served.has(name)


def test_an_application_has_to_name_its_apps():
    with pytest.raises(InvalidValueError, match=r"^apps: must name .*apps=\['shop'\]"):
        served_apps(FastAPI(), runners=(), apps=None)
    with pytest.raises(InvalidValueError, match=r"^apps: must be a collection .*\['shop'\]"):
        served_apps(FastAPI(), runners=(), apps="shop")


@pytest.mark.parametrize("web", [False, True])
@since_adk("2.8", "a folder without an agent is listed")
def test_a_loader_imports_only_what_it_lists(tmp_path, web):
    """Seen to fail with ADK's loader: it imports the script, and runs it."""
    (tmp_path / "script.py").write_text("raise AssertionError('it was imported')")
    (tmp_path / "this").mkdir()
    loader = agent_loader(tmp_path, web=web)
    for name in ("script", "this", "json"):
        with pytest.raises(ValueError, match="not found"):
            loader.load_agent(name)
