"""Events reach the webhook, by any number of senders, and beside a sweep that goes on."""

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import httpx
import pytest

from backends import create
from lapse.core.feed import Feed
from lapse.sweep.sweeper import sweep_once
from lapse.webhooks.rules import AT_ONCE, WebhookOptions, read_secret
from lapse.webhooks.sender import WebhookFailedError, WebhookSender
from receiving import SECRET, receiving

SHORT = timedelta(milliseconds=1)


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


def sender(store, receiver):
    return WebhookSender(store, WebhookOptions(receiver.url, (read_secret(SECRET),)))


async def connected(stack, *senders):
    for one in senders:
        await stack.enter_async_context(one._connected())


async def expire(store, sessions):
    """Have sessions expire, as a sweep expires a backlog."""
    for number in range(sessions):
        await create(store, f"s{number}", now=None, ttl=SHORT)
    await asyncio.sleep(SHORT.total_seconds())
    feed, expired = Feed(), 0
    while expired < sessions:
        expired += (await sweep_once(store, feed)).expired


async def drain(sender):
    while await sender.step() == timedelta(0):
        pass


async def test_several_senders_deliver_each_event_once(store, receiver):
    """Seen to fail with a take that leaves `due_at` as it is."""
    senders = [sender(store, receiver) for _ in range(3)]
    async with AsyncExitStack() as stack:
        await connected(stack, *senders)
        await senders[0].step()  # it announces the webhook
        await expire(store, 150)
        await asyncio.gather(*map(drain, senders))
    assert len(receiver.came) == 150
    assert Counter(receiver.ids).most_common(1)[0][1] == 1
    sessions = {body["data"]["sessionId"] for body in receiver.bodies("session.expired")}
    assert sessions == {f"s{number}" for number in range(150)}
    assert sum(sum(one.sent.values()) for one in senders) == 150
    assert (await store.webhook_levels()).undelivered == 0


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410, 429, 500])
async def test_any_answer_but_2xx_is_a_failure_and_no_redirect_is_followed(
    store, receiver, status, caplog
):
    """Seen to fail with a client that follows redirects."""
    receiver.answers = status
    one = sender(store, receiver)
    async with AsyncExitStack() as stack:
        await connected(stack, one)
        await one.step()
        await expire(store, 1)
        with pytest.raises(WebhookFailedError, match=f"it answers {status}") as caught:
            await one.step()
    assert [path for path, _, _ in receiver.came] == ["/hook?token=of-the-url"]
    assert one.failed == 1
    assert (await store.webhook_levels()).undelivered == 1
    assert "of-the-url" not in str(caught.value) + caplog.text


@pytest.mark.parametrize("status", [204, 302, 500])
async def test_no_library_logs_the_secret_of_the_url(store, receiver, status, caplog):
    """Nor what is answered, which may repeat it; other requests of the process are logged.

    Seen to fail with httpx's own line at INFO, and for 302 with httpcore's lines at DEBUG.
    """
    caplog.set_level(logging.DEBUG)
    receiver.answers, receiver.location = status, f"{receiver.url}&again"
    one = sender(store, receiver)
    async with AsyncExitStack() as stack:
        await connected(stack, one)
        await one.step()
        await expire(store, 1)
        with suppress(WebhookFailedError):
            await one.step()
    assert receiver.ids
    told = [(record.name, record.getMessage(), str(vars(record))) for record in caplog.records]
    assert not [one for one in told if "of-the-url" in str(one)]
    caplog.clear()
    async with httpx.AsyncClient() as client:
        await client.get(receiver.url)
    assert "of-the-url" in caplog.text


async def test_a_webhook_that_answers_nothing_costs_ten_seconds_at_most(
    store, receiver, monkeypatch
):
    monkeypatch.setattr("lapse.webhooks.sender.TIMEOUT", timedelta(milliseconds=100))
    receiver.answers = None
    one = sender(store, receiver)
    async with AsyncExitStack() as stack:
        await connected(stack, one)
        await one.step()
        await expire(store, 1)
        with pytest.raises(WebhookFailedError, match="Timeout"):
            await one.step()


async def test_a_webhook_that_is_down_holds_up_no_sweep(store, receiver):
    """What waits is bounded by the outbox, and what is sent at a time by AT_ONCE."""
    one = sender(store, receiver)
    receiver.answers = 503
    async with AsyncExitStack() as stack:
        await connected(stack, one)
        await one.step()
        await expire(store, 500)
        with pytest.raises(WebhookFailedError):
            await one.step()
        levels = await store.webhook_levels()
        assert levels.undelivered == 500
        receiver.answers = 204
        await drain(one)
    # Those of the first attempt come again after their pause.
    assert (await store.webhook_levels()).undelivered <= AT_ONCE
    assert len(set(receiver.ids)) == 500


@pytest.mark.parametrize("status", [200, 204, 500])
async def test_connections_are_kept_alive(store, receiver, status, monkeypatch):
    """Seen to fail with what is answered left unread: each event has a connection of its own."""
    # A busy machine takes its time to answer.
    monkeypatch.setattr("lapse.webhooks.sender._READ_WITHIN", timedelta(minutes=5))
    one = sender(store, receiver)
    receiver.answers = status
    async with AsyncExitStack() as stack:
        await connected(stack, one)
        await one.step()
        await expire(store, 10 * AT_ONCE)
        for _ in range(10):
            with suppress(WebhookFailedError):
                await one.step()
    assert len(set(receiver.ids)) == 10 * AT_ONCE
    assert receiver.connections <= AT_ONCE


@pytest.mark.parametrize("says", [b"x" * 1000, b""], ids=["that goes on", "that never comes"])
async def test_an_answer_without_an_end_is_left_unread(store, receiver, monkeypatch, says):
    """And its event is delivered, for its status has come.

    Seen to fail without the bound of what is read, and with a failure to read it all as one of the
    event.
    """
    short, long = timedelta(milliseconds=200), timedelta(minutes=5)
    monkeypatch.setattr("lapse.webhooks.sender._READ_WITHIN", long if says else short)
    receiver.says, receiver.is_endless = says, True
    one = sender(store, receiver)
    async with AsyncExitStack() as stack:
        await connected(stack, one)
        await one.step()
        await expire(store, 1)
        async with asyncio.timeout(30):
            await one.step()
    assert sum(one.sent.values()) == 1
    assert (await store.webhook_levels()).undelivered == 0
