"""Pages of sessions: every filter, every order, and pages that stop after enough rows."""

import base64
import itertools
import json

import pytest

from backends import DUE, HOUR, T0, TICK, create, key, message
from lapse.core.errors import InvalidValueError
from lapse.core.lifecycle import Status
from lapse.overview import find as paging
from lapse.overview.find import LARGEST_PAGE, prefix_end
from lapse.overview.store import Query

IDS = ("aa%1", "aa_1", "ab", "ab\U0010ffffz", "b'c", "é", "\U0010ffff", "\U0010ffff1")


async def fill(store):
    """Sessions of three apps and two users, a third of each status, many with one moment."""
    keys = itertools.product(("app", "b", "c%"), ("ann", "bob"), IDS)
    for number, (app, user, name) in enumerate(keys):
        where = key(name, user, app)
        at = T0 + (number % 5) * TICK
        revision = await create(store, where, now=at, ttl=HOUR if number % 3 == 1 else DUE - T0)
        if number % 3 == 2:
            await store.at(at).append(where, message(at=at), revision)
    await store.at(DUE + 4 * TICK).expire_due(100)


async def pages(store, **asked):
    """Return the pages of a query, to the last one."""
    found, after = [], None
    while True:
        page = await store.at(DUE + HOUR / 4).find(Query(after=after, **asked))
        found.append(page.records)
        after = page.next
        if after is None:
            return found


def order_of(record, asked):
    if asked.get("user_id") is None:
        if asked.get("prefix"):
            return (record.key.session_id, *record.key)
        match asked.get("status"):
            case Status.WAITING:
                return (record.expires_at, *record.key)
            case Status.EXPIRED:
                return (record.restorable_until, *record.key)
    return tuple(record.key)


@pytest.mark.parametrize("examined", [3, 1000])
async def test_every_combination_of_filters_finds_the_matching_sessions_in_order(
    store, monkeypatch, examined
):
    """Seen to fail with pages that go on behind the last record that fits, not examined."""
    monkeypatch.setattr(paging, "MAX_EXAMINED", examined)
    await fill(store)
    everything = list(itertools.chain(*await pages(store, size=500)))
    assert len(everything) == 48
    statuses = (None, Status.WAITING, Status.EXPIRED, Status.USED)
    for status, app, user, prefix in itertools.product(
        statuses, (None, "b", "c%"), (None, "bob"), (None, "a", "ab", "\U0010ffff", "aa_")
    ):
        asked = {"status": status, "app_name": app, "user_id": user, "prefix": prefix}
        found = await pages(store, size=4, **asked)
        assert all(len(page) <= 4 for page in found)
        expected = [
            one
            for one in everything
            if status in {None, one.status}
            and app in {None, one.key.app_name}
            and user in {None, one.key.user_id}
            and one.key.session_id.startswith(prefix or "")
        ]
        flat = list(itertools.chain(*found))
        assert sorted(one.key for one in flat) == sorted(one.key for one in expected), asked
        if flat and all(map(str.isascii, (part for one in flat for part in one.key))):
            assert flat == sorted(flat, key=lambda one: order_of(one, asked)), asked


async def test_a_found_record_equals_the_lifecycle_record(store):
    await create(store)
    page = await store.at(DUE).find(Query(status=Status.WAITING))
    assert page.records == [await store.at(DUE).lifecycle(key())]
    assert page.records[0].status is Status.EXPIRED
    assert (await store.at(DUE).find(Query(status=Status.EXPIRED))).records == []


async def test_a_cursor_is_valid_for_its_own_query_only(store):
    await fill(store)
    page = await store.at(DUE).find(Query(app_name="app", size=2))
    other = (await store.at(DUE).find(Query(size=2))).next
    forged = ["", "?", "bm9uc2Vuc2U", other, page.next[:-3], page.next + "A", "é", "W" * 100_000]
    digest, moment, *where = json.loads(base64.b64decode(page.next + "=="))
    wrong = (
        [digest, moment, *where, "more"],
        [digest, True, *where],
        [digest, 1 << 80, *where],
        [digest, moment, "a\0", "b", "c"],
        [digest, moment, "\ud800", "b", "c"],
        [digest, moment, 1, "b", "c"],
    )
    texts = (base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for one in wrong)
    for after in (*forged, *texts):
        with pytest.raises(InvalidValueError) as refused:
            await store.at(DUE).find(Query(app_name="app", after=after))
        assert refused.value.field == "after"


@pytest.mark.parametrize("size", [0, -1, LARGEST_PAGE + 1])
async def test_an_impossible_page_size_is_refused(store, size):
    with pytest.raises(InvalidValueError, match="size"):
        await store.find(Query(size=size))


async def test_a_filter_that_no_session_can_match_finds_nothing(store):
    await create(store)
    for asked in (
        {"prefix": "\0"},
        {"app_name": "\ud800"},
        {"user_id": "a" * 129},
        {"prefix": "%"},
        {"prefix": "'; DROP TABLE lapse_lobby; --"},
        {"status": Status.ORPHAN},
        {"user_id": ""},
    ):
        page = await store.at(T0).find(Query(**asked))
        assert (list(page.records), page.next) == ([], None)


def test_the_upper_bound_of_a_prefix_is_above_every_text_with_that_prefix():
    ends = [prefix_end(text) for text in ("a", "az", "\ud7ff", "a\U0010ffff")]
    assert ends == ["b", "a{", "\ue000", "b"]
    assert prefix_end("\U0010ffff") == prefix_end("") > "\U0010ffff" * 128
