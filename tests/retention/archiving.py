"""What tests of the archive share: a policy, and all that ADK's tables hold of a session."""

from datetime import timedelta

from backends import T0
from lapse.retention.policy import parse_policy

DAY = timedelta(days=1)
LATER = T0 + 30 * DAY
"""When a session that was used at T0 is due by POLICY: the first moment."""

POLICY = parse_policy('[default]\nidle = "30d"\narchive = "100d"\n')


async def archive(store, *keys, now=LATER, policy=POLICY):
    """Archive sessions by a policy; return what became of them."""
    return await store.at(now).archive_sessions(list(keys), policy)


async def whole(store, key, now=T0):
    """Return all that a session is for its readers: state, revision and events, as texts."""
    found = await store.at(now).read(key)
    if found is None:
        return None
    return found.state, found.revision, [tuple(vars_of(event)) for event in found.events]


def vars_of(event):
    return event.id, event.invocation_id, event.timestamp, event.data
