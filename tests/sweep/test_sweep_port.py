"""`lapse sweep --watch --port`: a process that only sweeps tells machines how it is."""

from __future__ import annotations

import re
import signal
import subprocess
from contextlib import contextmanager
from datetime import timedelta

import httpx
import pytest

from backends import create
from parts import store_with_parts
from serving import LAPSE, environment, eventually, lapse

TOKEN = "scrape-" + "t" * 24


@contextmanager
def sweeping(folder, *arguments, **settings):
    """Run a sweeper with a free port; yield a client of it."""
    log = folder / "sweep.log"
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [LAPSE, "sweep", "--watch", "--port", "0", *arguments],
            cwd=folder,
            env=environment(LAPSE_SWEEPER="off", **settings),
            stdout=lines,
            stderr=lines,
        )
    try:
        told = eventually(lambda: re.search(r"http://\S+:(\d+) has /livez", log.read_text()))
        with httpx.Client(base_url=f"http://127.0.0.1:{told[1]}", trust_env=False) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


async def leave_a_due_session(folder):
    store = store_with_parts(f"sqlite:///{folder / 'lapse.db'}")
    try:
        await create(store, now=None, ttl=timedelta(milliseconds=1))
    finally:
        await store.close()


def samples(client):
    text = client.get("/metrics").raise_for_status().text
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


async def test_what_a_sweeper_does_is_counted_where_it_is_done(tmp_path):
    """No server counts what another process expires, so that no alert would see it.

    Seen to fail without the subscription of the metrics, and without those of the sweep.
    """
    await leave_a_due_session(tmp_path)
    with sweeping(tmp_path) as client:

        def swept():
            # A sweep counts what it expires before its own end.
            found = samples(client)
            has_ended = float(found["lapse_sweep_duration_seconds_count"]) >= 1
            return [
                found
                for name, value in found.items()
                if name.startswith("lapse_sessions_expired_total{") and float(value) == 1
            ] * has_ended

        (found,) = eventually(swept)
        assert any(name.startswith("lapse_expiry_lateness_seconds_count") for name in found)
        assert float(found["lapse_used_sessions_expired_total"]) == 0
        assert float(found["lapse_store_up"]) == 1
        assert client.get("/livez").status_code == 200
        assert eventually(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/list-apps").status_code == 404


async def test_where_callers_are_authenticated_metrics_need_their_token(tmp_path):
    """Seen to fail without the middleware."""
    guarded = {"LAPSE_AUTH": "header", "LAPSE_AUTH_PROXIES": "127.0.0.1"}
    with sweeping(tmp_path, **guarded, LAPSE_METRICS_TOKEN=TOKEN) as client:
        assert client.get("/metrics").status_code == 401
        for token, status in ((TOKEN, 200), ("t" + TOKEN, 401)):
            asked = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
            assert asked.status_code == status
        assert client.get("/livez").status_code == 200
    with sweeping(tmp_path, **guarded, LAPSE_METRICS_OPEN="true") as client:
        assert client.get("/metrics").status_code == 200


ALL = ("--host", "0.0.0.0")


@pytest.mark.parametrize("settings", [{}, {"LAPSE_AUTH": "none"}])
def test_beyond_this_machine_metrics_need_a_token_or_the_word_insecure(tmp_path, settings):
    """As `lapse serve` needs authentication. Seen to fail without the check."""
    done = lapse(tmp_path, "sweep", "--watch", "--port", "0", *ALL, **settings)
    assert done.returncode == 1
    assert "--host 0.0.0.0: without a token everybody who reaches" in done.stderr
    assert "LAPSE_METRICS_TOKEN" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "status"),
    [
        (("--insecure",), {}, 200),
        ((), {"LAPSE_METRICS_OPEN": "true"}, 200),
        ((), {"LAPSE_METRICS_TOKEN": TOKEN}, 401),
    ],
)
def test_a_sweeper_beyond_this_machine_answers_as_it_was_told(
    tmp_path, arguments, settings, status
):
    """Seen to fail where a token counts with LAPSE_AUTH alone."""
    with sweeping(tmp_path, *ALL, *arguments, **settings) as client:
        assert client.get("/metrics").status_code == status
        known = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/metrics", headers=known).status_code == 200
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("arguments", [["--once"], ["--dry-run"], []])
def test_only_a_sweeper_that_goes_on_has_a_port(tmp_path, arguments):
    done = lapse(tmp_path, "sweep", *arguments, "--port", "0")
    assert done.returncode == 2
    assert "--port needs --watch" in done.stderr
