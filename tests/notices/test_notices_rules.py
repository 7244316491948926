"""Which notices a stream sends, from what its reader knows and what the record says."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from backends import DUE, T0, TICK, TTL, key
from lapse.core.lifecycle import Lifecycle, Status
from lapse.notices.rules import Known, NoticeKind, greeting, news, next_moment, warning_at

WAITING = Lifecycle(key(), Status.WAITING, T0, TTL, DUE, restorable_until=DUE + TTL)
EXPIRED = replace(WAITING, status=Status.EXPIRED, expired_at=DUE)
USED = replace(WAITING, status=Status.USED, expires_at=None, first_message_at=T0)
ON_ITS_WAY = replace(WAITING, expires_at=None, restorable_until=None, first_message_at=T0)
ARCHIVED = replace(USED, status=Status.ARCHIVED, archived_at=DUE)
ENDING = replace(USED, archives_at=DUE)
ORPHAN = Lifecycle(key(), Status.ORPHAN, T0)
FIVE = timedelta(minutes=5)


def revived(record):
    return replace(record, resurrections=record.resurrections + 1)


def kinds_of_news(before, after, at=T0):
    return [str(notice.kind) for notice in news(Known.of(before), after, at, FIVE)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (WAITING, WAITING, []),
        (WAITING, replace(WAITING, metadata={"title": "new"}), []),
        (WAITING, replace(WAITING, expires_at=DUE + FIVE), ["extended"]),
        (WAITING, replace(WAITING, expires_at=DUE - FIVE), ["extended"]),
        (WAITING, ON_ITS_WAY, []),
        (ON_ITS_WAY, USED, ["used"]),
        (ON_ITS_WAY, WAITING, ["extended"]),
        (EXPIRED, revived(ON_ITS_WAY), ["resurrected"]),
        (WAITING, EXPIRED, ["expired"]),
        (WAITING, USED, ["used"]),
        (WAITING, revived(USED), ["resurrected", "used"]),
        (WAITING, revived(WAITING), ["resurrected"]),
        (WAITING, replace(WAITING, created_at=T0 + TICK), ["lifecycle"]),
        (EXPIRED, EXPIRED, []),
        (EXPIRED, replace(EXPIRED, restorable_until=DUE + 2 * TTL), []),
        (EXPIRED, revived(EXPIRED), ["expired"]),
        (EXPIRED, revived(replace(WAITING, expires_at=DUE + TTL)), ["resurrected"]),
        (EXPIRED, revived(USED), ["resurrected", "used"]),
        (EXPIRED, replace(WAITING, created_at=DUE), ["lifecycle"]),
        (USED, USED, []),
        (ORPHAN, ORPHAN, []),
        (ORPHAN, WAITING, ["lifecycle"]),
        (ORPHAN, USED, ["used"]),
        (USED, ENDING, ["archiving"]),
        (WAITING, ENDING, ["used", "archiving"]),
        (USED, ARCHIVED, ["archived"]),
        (ENDING, ARCHIVED, ["archived"]),
        (WAITING, ARCHIVED, ["archived"]),
        (ARCHIVED, ARCHIVED, []),
        (ARCHIVED, USED, ["restored"]),
        (ARCHIVED, ENDING, ["restored", "archiving"]),
        (ARCHIVED, replace(WAITING, created_at=DUE), ["lifecycle"]),
    ],
)
def test_each_change_gives_its_notices_once(before, after, expected):
    """Seen to fail where a session on its way to another service is told as extended."""
    assert kinds_of_news(before, after) == expected
    last = news(Known.of(before), after, T0, FIVE)
    if last:
        assert news(last[-1].known, after, T0, FIVE) == []


def test_the_warning_comes_at_its_time_and_once_for_each_deadline():
    at = DUE - FIVE
    assert kinds_of_news(WAITING, WAITING, at - TICK) == []
    (warning,) = news(Known.of(WAITING), WAITING, at, FIVE)
    assert (warning.kind, warning.time_left) == (NoticeKind.EXPIRING, FIVE)
    assert news(warning.known, WAITING, DUE - TICK, FIVE) == []
    later = replace(WAITING, expires_at=DUE + FIVE)
    kinds = [notice.kind for notice in news(warning.known, later, DUE, FIVE)]
    assert kinds == [NoticeKind.EXTENDED, NoticeKind.EXPIRING]


def test_an_archive_is_announced_once_and_taken_back_when_the_session_is_used():
    """Whichever replica hears of it: what was told is in the id of the event.

    Seen to fail without the notice that takes it back.
    """
    (warning,) = news(Known.of(USED), ENDING, T0, FIVE)
    assert (warning.kind, warning.time_left) == (NoticeKind.ARCHIVING, TTL)
    told = Known.parse(warning.known.text)
    assert told == warning.known
    assert news(told, ENDING, DUE - TICK, FIVE) == []
    assert [notice.kind for notice in greeting(told, ENDING, T0, FIVE)] == [NoticeKind.LIFECYCLE]
    (back,) = news(told, USED, T0, FIVE)
    assert back.kind is NoticeKind.LIFECYCLE
    assert news(back.known, USED, T0, FIVE) == []
    later = replace(ENDING, archives_at=DUE + TTL)
    assert [notice.kind for notice in news(told, later, T0, FIVE)] == [NoticeKind.ARCHIVING]
    assert [notice.kind for notice in news(back.known, later, T0, FIVE)] == [NoticeKind.ARCHIVING]


def test_a_warning_comes_at_most_half_the_ttl_ahead_and_never_if_disabled():
    assert warning_at(WAITING, 2 * TTL) == DUE - TTL / 2
    assert warning_at(WAITING, timedelta(0)) is None
    for record in (EXPIRED, USED, ORPHAN):
        assert warning_at(record, FIVE) is None


def test_a_stream_wakes_at_the_warning_then_the_deadline_then_the_purge():
    known = Known.of(WAITING)
    assert next_moment(WAITING, known, FIVE) == DUE - FIVE
    assert next_moment(WAITING, replace(known, warned=True), FIVE) == DUE
    assert next_moment(EXPIRED, Known.of(EXPIRED), FIVE) == EXPIRED.restorable_until
    assert next_moment(USED, Known.of(USED), FIVE) is None


def test_a_stream_begins_with_the_status_and_then_what_was_missed():
    def greeted(known, record):
        return [str(notice.kind) for notice in greeting(known, record, T0, FIVE)]

    assert greeted(None, EXPIRED) == ["lifecycle"]
    assert greeted(Known.of(WAITING), EXPIRED) == ["lifecycle", "expired"]
    assert greeted(Known.of(EXPIRED), EXPIRED) == ["lifecycle"]
    # Another session of the same id is none of its history's business.
    assert greeted(Known.of(EXPIRED), replace(USED, created_at=DUE)) == ["lifecycle"]


@given(
    some.sampled_from(Status),
    some.datetimes(timezones=some.just(T0.tzinfo)),
    some.none() | some.datetimes(timezones=some.just(T0.tzinfo)),
    some.integers(0, 10**6),
    some.booleans(),
)
def test_a_last_event_id_parses_back_to_what_was_known(
    status, created_at, expires_at, resurrections, warned
):
    known = Known(created_at, status, expires_at, resurrections, warned)
    assert Known.parse(known.text) == known
    assert known.text.isascii()
    assert not set(known.text) & set(" \r\n\0")


@pytest.mark.parametrize(
    "text", ["", "7", "w", "w.1.2", "x.1.2.3", "w.a.2.3", f"w.{10**30}.2.3", "w.1.2.3.4", "é.1.2.3"]
)
def test_a_malformed_last_event_id_is_ignored(text):
    assert Known.parse(text) is None
