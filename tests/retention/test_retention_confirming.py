"""A policy is confirmed: in the store, by the command line, and as running servers see it."""

from datetime import timedelta

import pytest

from backends import BACKENDS, HOUR, T0, create, key, message, use
from calling import Caller
from lapse.core.feed import Feed
from lapse.retention.keeper import RetentionKeeper
from lapse.retention.policy import parse_policy
from lapse.retention.store import WEEKS, Falling
from serving import AGENTS, eventually, serving
from serving import lapse as command

DAY = timedelta(days=1)
POLICY = parse_policy('[default]\nidle = "30d"\n[apps.shop]\nage = "10d"\nper_user = 1\n')


async def test_a_confirmation_is_of_one_policy(store):
    assert await store.retention_confirmed() is None
    assert await store.at(T0).confirm_retention(POLICY, by="ann")
    assert not await store.at(T0 + HOUR).confirm_retention(POLICY, by="bob")
    found = await store.retention_confirmed()
    assert (found.digest, found.confirmed_at, found.by) == (POLICY.digest, T0, "ann")
    other = parse_policy('[default]\nidle = "31d"\n')
    assert await store.at(T0 + HOUR).confirm_retention(other, by="bob")
    assert (await store.retention_confirmed()).digest == other.digest
    acts = await store.acts(newest=10)
    assert [(act.by, act.action) for act in acts] == [
        ("bob", "retention-confirmed"),
        ("ann", "retention-confirmed"),
    ]


async def preview(store, now):
    return await store.at(now).preview_retention(POLICY)


async def test_a_preview_tells_when_sessions_fall_due(store):
    """The first moment at which a session is due counts as now. Seen to fail with `<` for `<=`."""
    await use(store)
    await create(store, "waits")
    assert await preview(store, T0) == [Falling("app", 5, 0, 0, 1)]
    assert await preview(store, T0 + 23 * DAY) == [Falling("app", 2, 0, 0, 1)]
    assert await preview(store, T0 + 29 * DAY) == [Falling("app", 1, 0, 0, 1)]
    assert await preview(store, T0 + 30 * DAY) == [Falling("app", 0, 0, 0, 1)]
    assert await preview(store, T0 + 400 * DAY) == [Falling("app", 0, 4, 0, 1)]


async def test_a_preview_counts_from_the_last_event_or_the_first(store):
    revision = await use(store)
    later = T0 + 20 * DAY
    await store.at(later).append(key(), message("m2", at=later), revision)
    assert await preview(store, T0 + 30 * DAY) == [Falling("app", 3, 0, 0, 1)]
    assert await preview(store, later + 30 * DAY) == [Falling("app", 0, 1, 0, 1)]


async def test_a_preview_follows_the_limits_of_each_app(store):
    for number, now in enumerate((T0 + HOUR, T0)):
        session = key(f"s{number}", app="shop")
        revision = await create(store, session, now=now)
        await store.at(now).append(session, message(at=now), revision)
    assert await preview(store, T0 + 2 * HOUR) == [
        Falling("shop", 0, 0, 0, 1),
        Falling("shop", 2, 0, 0, 1),
    ]
    assert await preview(store, T0 + 20 * DAY) == [Falling("shop", 0, 0, 0, 2)]


@pytest.mark.parametrize("names", [("B", "a"), ("a", "B")], ids=["B first", "a first"])
async def test_a_preview_takes_the_session_that_an_archive_takes_of_two_as_idle(store, names):
    """The one whose id comes later, by its characters' numbers: "a" comes after "B".

    Seen to fail with a preview that orders by ids the other way round.
    """
    since = dict(zip(names, (T0 - 100 * DAY, T0 - 40 * DAY), strict=True))
    for name, now in since.items():
        revision = await use(store, name, now=now)
        await store.at(T0).append(key(name), message("m2", at=T0), revision)
    policy = parse_policy("[default]\nper_user = 1\n")
    found = {one.week: one for one in await store.at(T0 + HOUR).preview_retention(policy)}
    assert found[0] == Falling("app", 0, 2 if since["a"] < since["B"] else 1, 0, 1)
    assert found[WEEKS + 1].sessions == 1
    await store.at(T0 + HOUR).archive_sessions([key("a"), key("B")], policy)
    taken = [name for name in names if await store.at(T0 + HOUR).read(key(name)) is None]
    assert taken == ["a"]


async def test_a_preview_finds_the_used_sessions_of_stock_adk_and_no_empty_ones(store, stock):
    from google.adk.events.event import Event
    from google.genai.types import Content, Part

    for name in ("empty", "used"):
        session = await stock.create_session(app_name="app", user_id="ann", session_id=name)
    content = Content(role="user", parts=[Part(text="hello")])
    await stock.append_event(session, Event(author="user", content=content))
    (found,) = await store.preview_retention(POLICY)
    assert (found.app_name, found.sessions, found.week) == ("app", 1, 5)
    never = parse_policy('[default]\narchive = "1d"\n')
    (found,) = await store.preview_retention(never)
    assert found.week == WEEKS + 1


@pytest.fixture(params=[one for one in BACKENDS if one.shared], ids=lambda one: one.name)
def lapse(request, monkeypatch, capsys, tmp_path):
    """The command line on a store that is ready, with a policy file."""
    with request.param.empty(tmp_path) as url:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "policy.toml").write_text('[default]\nidle = "30d"\n')
        monkeypatch.setenv("LAPSE_RETENTION_FILE", "policy.toml")
        caller = Caller(monkeypatch, capsys, url)
        caller.do(lambda store: store.open())
        yield caller


def test_check_shows_what_a_policy_would_take_and_takes_nothing(lapse):
    lapse.do(lambda store: use(store, now=T0 - 2000 * DAY))
    found = lapse("retention", "check", "--json").json
    assert not found["confirmed"]
    (app,) = found["apps"]
    assert (app["appName"], app["sessions"], app["dueNow"]) == ("app", 1, 1)
    assert app["dueNowByAge"] in ([0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0])
    told = lapse("retention", "check").out
    assert "not confirmed" in told
    assert "█" in told


def test_confirm_asks_and_says_who_confirmed(lapse):
    assert lapse("retention", "confirm", "--yes").out == "the policy is confirmed\n"
    assert lapse("retention", "confirm", "--yes").out == "the policy was confirmed already\n"
    assert "confirmed by cli:" in lapse("retention", "check").out
    assert lapse("retention", "check", "--json").json["confirmed"]


def test_without_a_file_there_is_no_policy(lapse, monkeypatch):
    monkeypatch.delenv("LAPSE_RETENTION_FILE")
    found = lapse("retention", "check")
    assert found.status == 1
    assert "LAPSE_RETENTION_FILE" in found.err


async def test_a_policy_is_in_force_while_its_file_is_as_confirmed(store, tmp_path):
    """Seen to fail with a keeper that keeps its policy while the file is wrong."""
    path = tmp_path / "policy.toml"
    path.write_text('[default]\nidle = "30d"\n')
    keeper = RetentionKeeper(store, Feed(), path)
    seen = []
    for step in ("look", "confirm", "comment", "change", "break", "mend"):
        match step:
            case "confirm":
                await store.confirm_retention(parse_policy(path.read_text()), by="ann")
            case "comment":
                path.write_text('# why\n[default]\nidle = "720h"\n')
            case "change":
                path.write_text('[default]\nidle = "1d"\n')
            case "break":
                path.write_text("[default")
            case "mend":
                path.write_text('[default]\nidle = "30d"\n')
        pause = await keeper.step()
        assert pause <= timedelta(seconds=10)
        seen.append(keeper.policy is not None)
    assert seen == [False, True, True, False, False, True]


@pytest.mark.long
def test_a_running_server_hears_of_a_confirmation(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('[default]\nidle = "30d"\n')
    with serving(tmp_path, str(AGENTS), LAPSE_RETENTION_FILE=str(path)) as server:
        eventually(lambda: "the policy is not confirmed" in server.log)
        store = f"sqlite:///{tmp_path / 'lapse.db'}"
        done = command(
            tmp_path,
            "retention",
            "confirm",
            "--yes",
            "--store",
            store,
            LAPSE_RETENTION_FILE=str(path),
        )
        assert done.returncode == 0
        eventually(lambda: "the retention policy is in force, as cli:" in server.log)
