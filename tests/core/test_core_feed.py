"""The feed of changes."""

import math

from backends import T0, TTL, key
from lapse.core.feed import Feed
from lapse.core.lifecycle import Change, ChangeKind, Expiries, Lifecycle, Status


def change(name):
    return Change(ChangeKind.CREATED, T0, Lifecycle(key(name), Status.WAITING, T0, ttl=TTL))


CHANGES = [change(f"s{number}") for number in range(3)]


def test_every_consumer_gets_every_change_in_order():
    feed, one, other = Feed(), [], []
    feed.subscribe(one.append)
    feed.subscribe(other.append)
    feed.publish(CHANGES)
    assert one == other == CHANGES


def test_a_consumer_that_unsubscribed_gets_no_more_changes():
    feed, one, other = Feed(), [], []
    leave = feed.subscribe(one.append)
    feed.subscribe(other.append)
    leave()
    leave()
    feed.publish(CHANGES)
    assert (one, other) == ([], CHANGES)


def test_a_consumer_may_unsubscribe_while_it_gets_a_change():
    feed, heard = Feed(), []

    def once(news):
        heard.append(news)
        leave()

    leave = feed.subscribe(once)
    feed.publish(CHANGES)
    assert heard == CHANGES[:1]


def test_a_consumer_that_raises_is_logged_and_the_others_still_get_the_change(caplog):
    feed, heard = Feed(), []

    def careless(news):
        raise ValueError(news.record.key)

    feed.subscribe(careless)
    feed.subscribe(heard.append)
    feed.publish(CHANGES)
    assert heard == CHANGES
    assert len(caplog.records) == len(CHANGES)
    assert {one.getMessage() for one in caplog.records} == {
        "a consumer of changes failed on created"
    }
    assert all(one.exc_info for one in caplog.records)


def test_expiries_come_together_if_every_consumer_takes_them(caplog):
    feed, single, many = Feed(), [], []
    feed.subscribe(single.append, of_many=many.append)
    assert feed.takes_many
    expiries = Expiries("shop", T0, (1.0, 2.0), "[]")
    feed.publish_many(expiries)
    assert (single, many) == ([], [expiries])
    leave = feed.subscribe(single.append)
    assert not feed.takes_many
    leave()
    feed.subscribe(single.append, of_many=[].index)
    feed.publish_many(expiries)
    assert many == [expiries] * 2
    assert [one.getMessage() for one in caplog.records] == [
        "a consumer of changes failed on expired"
    ]


def test_the_feed_is_quiet_until_somebody_but_a_sweep_publishes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("lapse.core.feed.time.monotonic", lambda: now[0])
    feed = Feed()
    assert feed.quiet_for == math.inf
    feed.publish(CHANGES, swept=True)
    assert feed.quiet_for == math.inf
    feed.publish([])
    now[0] = 103.0
    assert feed.quiet_for == 3
