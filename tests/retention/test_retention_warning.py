"""What is told before a session is archived: when, how often, and until it is used again."""

import pytest
from archiving import DAY, LATER, archive

from backends import HOUR, T0, TICK, key, message, use
from lapse.core.lifecycle import Cause, ChangeKind
from lapse.retention.policy import parse_policy
from lapse.retention.rules import Limits, Look, Standing, look

WARNED = LATER - 7 * DAY


@pytest.mark.parametrize(
    ("limits", "lead"),
    [
        (Limits(idle=30 * DAY), 7 * DAY),
        (Limits(idle=14 * DAY), 7 * DAY),
        (Limits(idle=4 * DAY), 2 * DAY),
        (Limits(age=2 * DAY), DAY),
        (Limits(idle=4 * DAY, age=90 * DAY), 2 * DAY),
        (Limits(idle=90 * DAY, age=4 * DAY), 2 * DAY),
    ],
)
def test_an_archive_is_told_a_week_before_and_at_most_half_of_its_limit(limits, lead):
    due = T0 + min(span for span in (limits.idle, limits.age) if span is not None)

    def looked(now, **more):
        return look(limits, Standing(now=now, began_at=T0, active_at=T0, **more))

    assert looked(T0) == Look(due - lead)
    assert looked(due - lead - TICK) == Look(due - lead)
    assert looked(due - lead) == Look(due, warns=True)
    assert looked(due) == Look(due)
    # Who is exempt is told nothing, and is looked at again while it may be told.
    assert looked(due - lead, is_exempt=True) == Look(due - lead + HOUR)
    assert looked(due - TICK, is_exempt=True) == Look(due)


def test_the_limit_that_archives_says_how_early_it_is_told():
    """Seen to fail with half of the shortest limit."""
    limits, due = Limits(idle=4 * DAY, age=10 * DAY), T0 + 10 * DAY
    standing = Standing(now=due - 3 * DAY, began_at=T0, active_at=due - 3 * DAY)
    assert look(limits, standing) == Look(due, warns=True)


async def told(store, now):
    """Return when a session is archived, as those who watch it are told at a moment."""
    return (await store.at(now).records([key()])).records[key()].archives_at


async def test_a_coming_archive_is_told_once_and_not_any_more_when_it_is_used(store):
    """A message writes nothing of it. Seen to fail with an archive that is told at every look."""
    revision = await use(store)
    await archive(store, key(), now=WARNED - TICK)
    assert await told(store, WARNED) is None
    changes = (await archive(store, key(), now=WARNED)).changes
    assert [(one.kind, one.record.archives_at) for one in changes] == [
        (ChangeKind.ARCHIVING, LATER)
    ]
    assert await told(store, WARNED) == LATER
    assert (await archive(store, key(), now=WARNED + HOUR)).changes == []
    assert await told(store, WARNED + HOUR) == LATER

    later = WARNED + 2 * HOUR
    await store.at(later).append(key(), message("m2", at=later), revision)
    assert await told(store, later) is None
    assert (await archive(store, key(), now=LATER)).changes == []
    changes = (await archive(store, key(), now=later + 23 * DAY)).changes
    assert [one.kind for one in changes] == [ChangeKind.ARCHIVING]
    assert await told(store, later + 23 * DAY) == later + 30 * DAY
    assert await told(store, later + 30 * DAY) == later + 30 * DAY
    # If no sweep comes by, the policy may be in force no longer.
    assert await told(store, later + 30 * DAY + 2 * HOUR) is None


async def test_a_message_of_stock_adk_takes_it_back_too(store, stock):
    """Seen to fail with a look at what Lapse alone has written."""
    from google.adk.events.event import Event
    from google.genai.types import Content, Part

    await use(store)
    await archive(store, key(), now=WARNED)
    session = await stock.get_session(app_name="app", user_id="ann", session_id="s1")
    content = Content(role="user", parts=[Part(text="hello")])
    at = (WARNED + HOUR).timestamp()
    await stock.append_event(session, Event(author="user", content=content, timestamp=at))
    assert await told(store, WARNED + HOUR) is None


@pytest.mark.parametrize("how", ["pinned", "held"])
async def test_what_is_exempt_by_now_is_not_told(store, how):
    await use(store)
    await archive(store, key(), now=WARNED)
    if how == "pinned":
        await store.at(WARNED).pin(key())
    else:
        await store.at(WARNED).put_on_hold(key(), reason="a case", by="op")
    assert await told(store, WARNED + HOUR) is None
    await archive(store, key(), now=WARNED + HOUR)
    assert await told(store, WARNED + HOUR) is None
    if how == "pinned":
        await store.at(WARNED + 2 * HOUR).unpin(key())
    else:
        await store.at(WARNED + 2 * HOUR).release_hold(key(), by="op")
    assert await store.at(WARNED + 2 * HOUR).due_for_look(10) == [key()]
    await archive(store, key(), now=WARNED + 2 * HOUR)
    assert await told(store, WARNED + 2 * HOUR) == LATER


async def test_a_restored_session_is_told_anew(store):
    await use(store)
    policy = parse_policy('[default]\nidle = "30d"\n')
    await archive(store, key(), now=WARNED, policy=policy)
    await archive(store, key(), now=LATER, policy=policy)
    await store.at(LATER + HOUR).resurrect(key(), cause=Cause.REQUEST)
    assert await told(store, LATER + HOUR) is None
    due = LATER + HOUR + 30 * DAY
    await archive(store, key(), now=due - 7 * DAY, policy=policy)
    assert await told(store, due - 7 * DAY) == due
