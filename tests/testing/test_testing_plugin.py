"""The pytest plug-in: the suite of the documentation runs, and each of its assertions can fail."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from adk_builders import message_event
from lapse.core.errors import InvalidValueError, NoSuchSessionError, WrongStatusError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from lapse.notices.rules import NoticeKind
from lapse.quotas.rules import Quotas
from lapse.testing import ClockedLapse

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def clocked():
    async with ClockedLapse() as made:
        yield made


async def create(made, name="s1", **options):
    return await made.sessions.create_session(
        app_name="shop", user_id="ann", session_id=name, **options
    )


def test_the_suite_of_the_documentation_runs(tmp_path):
    """As in a project of somebody else, where pytest finds the plug-in by itself."""
    text = (ROOT / "docs" / "testing.md").read_text("utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "test_shop.py").write_text(code, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n", "utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout
    assert f"{code.count('def test_')} passed" in ran.stdout


def test_pytest_does_not_load_adk_for_the_plug_in():
    """Seen to fail with a plug-in that imports `ClockedLapse` at its top."""
    code = (
        "import sys, lapse.testing.plugin; print([m for m in ('google.adk', 'httpx', 'fastapi')"
        " if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


async def test_time_passes_only_when_the_test_says_so(clocked):
    """Seen to fail with a store that goes by its own clock."""
    session = await create(clocked)
    record = await clocked.lifecycle(session)
    assert record.created_at == clocked.clock.now
    clocked.clock.advance(minutes=29, seconds=59)
    await clocked.sweep()
    await clocked.assert_status(session, Status.WAITING)
    clocked.clock.advance(timedelta(seconds=1))
    await clocked.sweep()
    await clocked.assert_status(session, "expired")
    clocked.clock.advance(days=1)
    await clocked.sweep()
    await clocked.assert_status(session, None)
    with pytest.raises(NoSuchSessionError):
        await clocked.lifecycle(session)
    with pytest.raises(InvalidValueError, match="only move ahead"):
        clocked.clock.advance(seconds=-1)


async def test_an_assertion_fails_with_what_is_so(clocked):
    session = await create(clocked)
    with pytest.raises(AssertionError, match="is waiting, not used"):
        await clocked.assert_status(session, Status.USED)
    with pytest.raises(AssertionError, match="is waiting, not None"):
        await clocked.assert_status(session, None)
    browser = clocked.browser(session)
    with pytest.raises(AssertionError, match=r"told \['lifecycle'\], not \['used'\]"):
        await browser.assert_notices("used")
    await browser.assert_notices()


async def test_one_session_is_expired_and_the_others_wait(clocked):
    """Seen to fail with an `expire` that moves the clock and sweeps."""
    session, other = await create(clocked), await create(clocked, "s2")
    await clocked.expire(session)
    await clocked.assert_status(session, "expired")
    await clocked.assert_status(other, "waiting")
    used = await create(clocked, "s3")
    await clocked.sessions.append_event(used, message_event("hello"))
    with pytest.raises(WrongStatusError):
        await clocked.expire(used)


async def test_a_browser_hears_what_a_page_would(clocked):
    """Seen to fail with a browser that forgets what it knows."""
    session = await create(clocked)
    browser = clocked.browser(session)
    assert await browser.notices() == [NoticeKind.LIFECYCLE]
    clocked.clock.advance(minutes=25)
    await browser.assert_notices("expiring")
    await browser.assert_notices()
    await clocked.expire(session)
    await browser.assert_notices("expired")
    await clocked.sessions.resurrect(SessionKey("shop", "ann", session.id))
    await browser.assert_notices("resurrected")
    found = await clocked.sessions.get_session(
        app_name="shop", user_id="ann", session_id=session.id
    )
    await clocked.sessions.append_event(found, message_event("hello"))
    await browser.assert_notices("used")
    await clocked.sessions.delete_session(app_name="shop", user_id="ann", session_id=session.id)
    await browser.assert_notices("deleted")
    await browser.assert_notices()


async def test_a_backlog_is_swept_whole(clocked):
    """Seen to fail with a sweep of one batch."""
    changes = []
    clocked.sessions.feed.subscribe(changes.append)
    for number in range(1001):
        await create(clocked, f"s{number}")
    clocked.clock.advance(minutes=30)
    changes.clear()
    await clocked.sweep()
    assert len(changes) == 1001


async def test_it_takes_what_the_service_takes():
    async with ClockedLapse(
        ttl=timedelta(hours=2), warn_before=timedelta(minutes=50), quotas=Quotas(waiting_per_user=1)
    ) as made:
        session = await create(made)
        browser = made.browser(session)
        await browser.assert_notices("lifecycle")
        made.clock.advance(minutes=70)
        await browser.assert_notices("expiring")
        made.clock.advance(minutes=49)
        await made.sweep()
        await made.assert_status(session, "waiting")
