"""Hooks that a program gives, and those that the setting names."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI

from lapse import Lapse, LapseSessionService, RetentionHooks, mount, store_from_url

POLICY = Path(__file__).with_name("policy.toml")


@pytest.mark.parametrize("way", ["Lapse", "mount"])
def test_hooks_that_a_program_gives_win_over_the_setting(way, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAPSE_RETENTION_FILE", str(POLICY))
    monkeypatch.setenv("LAPSE_RETENTION_HOOKS", "shop_hooks:HOOKS")
    hooks, app = RetentionHooks(), FastAPI()
    if way == "Lapse":
        Lapse("sqlite:///:memory:", retention_hooks=hooks).mount(app, apps=["app"])
    else:
        store = store_from_url("sqlite:///:memory:")
        mount(app, LapseSessionService(store, retention_hooks=hooks), apps=["app"])
    assert app.state.lapse.retention.hooked.beside.hooks is hooks


@pytest.mark.parametrize(
    ("settings", "forgets", "owes"),
    [
        ({}, True, True),
        ({"LAPSE_RETENTION_FILE": ""}, True, None),
        ({"LAPSE_RETENTION_MEMORY": "save"}, True, False),
        ({"LAPSE_RETENTION_HOOKS": "shop_hooks:HOOKS"}, True, False),
        ({"LAPSE_RETENTION_MEMORY": "keep"}, False, False),
        ({"LAPSE_MEMORY_SERVICE_URI": ""}, False, False),
        ({"LAPSE_SWEEPER": "off"}, False, None),
    ],
)
def test_what_is_owed_is_forgotten_by_all_that_may_and_owed_by_fewer(
    settings, forgets, owes, monkeypatch, tmp_path
):
    """A process that sweeps forgets what is owed, with a policy or without; `None`: no policy."""
    monkeypatch.chdir(tmp_path)
    given = {"LAPSE_RETENTION_FILE": str(POLICY), "LAPSE_MEMORY_SERVICE_URI": "memory://"}
    for name, value in (given | settings).items():
        if value:
            monkeypatch.setenv(name, value)
    lapse = Lapse("sqlite:///:memory:")
    assert (lapse.forgetting is not None) == forgets
    assert (lapse.retention and lapse.retention.hooked.beside.forgets()) == owes


async def test_a_purge_wakes_what_forgets(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAPSE_RETENTION_FILE", str(POLICY))
    monkeypatch.setenv("LAPSE_MEMORY_SERVICE_URI", "memory://")
    async with Lapse("sqlite:///:memory:") as lapse:
        stepped = asyncio.Event()
        work = lapse.forgetting.running()
        assert work.is_running
        await work.first_step(within=timedelta(seconds=30))
        step = work._step

        async def told():
            stepped.set()
            return await step()

        work._step = told
        lapse.retention.hooked.beside.on_owed()
        async with asyncio.timeout(20):  # it would look again after 30 s
            await stepped.wait()
