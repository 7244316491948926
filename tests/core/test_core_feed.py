"""The feed of changes."""

from backends import T0, TTL, key
from lapse.core.feed import Feed
from lapse.core.lifecycle import Change, ChangeKind, Lifecycle, Status


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
    assert "created" in caplog.text
