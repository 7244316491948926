"""A user with something in every place of a store, put there by the operations that do."""

import json
from datetime import timedelta

from backends import HOUR, T0, TTL, create, message, note, words
from lapse.artifacts.uploads import Upload
from lapse.core.documents import split_state
from lapse.core.keys import SessionKey
from lapse.core.messages import UsedBy
from lapse.idempotency.rules import KeyRules
from lapse.quotas.rules import Bucket, Drawer
from lapse.retention.rules import Limits, Policy
from lapse.runs.store import RunStatus
from parts import Store

APPS = ("app", "zoo")
SHARED = {"app:shared": 1}
MINUTE = timedelta(minutes=1)


async def fill(store: Store, user: str, mark: str) -> list[SessionKey]:
    """Give a user sessions of every status, and what goes with them; return their keys.

    `mark` stands in the ids of the sessions, in their content, their state and their metadata.
    """
    await store.at(T0).announce_webhook()
    found = []
    for app in APPS:
        found += await _sessions(store, user, mark, app)
    await store.at(T0).draw([Bucket.of(Drawer.USER, user, 10)])
    return found


async def _sessions(store: Store, user: str, mark: str, app: str) -> list[SessionKey]:
    def key(name: str) -> SessionKey:
        return SessionKey(app, user, f"{mark}-{app}-{name}")

    metadata = {"tag": mark, "é": [1, None, "🙂"]}
    used, held, asked, expired, keyed, kept = map(
        key, ("used", "held", "asked", "expired", "keyed", "archived")
    )

    state = {"mine": mark, "user:name": mark, **SHARED}
    revision = await create(store, used, state=state, metadata=metadata)
    for number in range(3):
        event = message(f"{mark}-m{number}", f"{mark} — ü 🙂", at=T0, state={"n": number})
        revision = (await store.at(T0).append(used, event, revision)).value.revision
    await store.at(T0).begin_run(used, f"{mark}-{app}-run", max_per_user=9)
    error = {"error": f"about {mark}"}
    await store.at(T0 + MINUTE).end_run(
        f"{mark}-{app}-run", RunStatus.FAILED, error=error, until=T0
    )
    await store.at(T0).take_room(Upload.of(used, f"{mark}.txt", 9), 1 << 20)

    revision = await create(store, held, state={"a": mark}, metadata=metadata)
    await store.at(T0).append(held, note(f"{mark}-n", at=T0, state={"b": 1.5}), revision)
    revision = await create(store, asked, used_by=UsedBy.USER)
    await store.at(T0).append(asked, words(f"{mark}-w", mark, at=T0), revision)
    await create(store, expired, metadata=metadata, ttl=MINUTE)
    await store.at(T0 + MINUTE).expire_due(99)
    await store.at(T0 + TTL).record_act("op", "ran", {"of": mark}, key=used)
    await store.at(T0 + TTL).record_act(user, "deleted", {}, key=used)

    revision = await create(store, kept, state={"kept": mark}, metadata=metadata)
    await store.at(T0).append(kept, message(f"{mark}-k", f"{mark} 🙂", at=T0), revision)
    await store.at(T0 + TTL).archive_sessions([kept], Policy(Limits(idle=MINUTE, archive=TTL)))

    request = KeyRules().request(f"{mark}-key", SessionKey(app, user, ""), "create", b"{}")
    await store.at(T0).create_once(
        keyed, request, state=split_state({}), ttl=25 * HOUR, metadata=metadata
    )
    return [used, held, asked, expired, keyed, kept]


def oddities(user: str) -> list[str]:
    """Return statements that write what stock ADK or others could have written by hand."""
    odd = {
        "spaced": '{ "a" :1.0,"b":[ 1e22, 1E-7 , 12345678901234567890123 ] }',
        "escaped": json.dumps({"ü": "\u2028\x7f\\"}),
        "plain": '{"ü": "🙂"}',
    }
    moment = "2030-01-01 00:00:00.000001"
    return [
        f"INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time) "
        f"VALUES ('app', '{user}', '{name}', '{text}', '{moment}', '{moment}')"
        for name, text in odd.items()
    ]
