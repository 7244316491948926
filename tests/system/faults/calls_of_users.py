"""Calls of the operations that erase and import a user, as `calls.py` has the others."""

from collections.abc import Awaitable, Callable
from typing import Any

from call import Call
from needs import PURGED, memory_owed, nothing

from backends import HOUR, T0, TTL
from lapse.core.keys import SessionKey
from lapse.erasure.places import PLACES
from lapse.erasure.store import Erasing, ErasureStore
from lapse.export.places import PLACES as EXPORTED
from lapse.export.places import line_of, values_of
from lapse.export.store import ImportStore
from lapse.idempotency.rules import owner_of
from lapse.retention.memory_outbox import OwedMemory
from lapse.store.operation import Dialect
from parts import Store
from users_data import APPS, fill

USER = "canary"
KEY = SessionKey("app", USER, "mark-app-used")
ERASING = Erasing(USER, [owner_of(app, USER) for app in APPS], pseudonym="erased-1")

UPLOADS = "lapse_uploads"
"""Its rows have random ids."""

STATE_OF_USER = line_of(
    EXPORTED[0],
    {"app_name": "app", "user_id": USER, "update_time": T0, "state": '{"a": 1}'},
    Dialect.POSTGRES,
)


async def lived(store: Store) -> None:
    """Have a user of whom something is kept in every place."""
    await fill(store, USER, "mark")


async def deleted(store: Store) -> None:
    """Have a deleted session, whose artifacts are still to be deleted."""
    await lived(store)
    await store.at(T0 + 2 * TTL).delete(KEY)


def taking(number: int) -> Callable[[Store], Awaitable[Any]]:
    place = PLACES[number]
    app = "app" if place.by_app else ""
    return lambda store: ErasureStore(store.database).take(place, app, ERASING)


def imported(store: Store) -> Awaitable[Any]:
    pages = [(EXPORTED[0], [values_of(EXPORTED[0], STATE_OF_USER)])]
    return ImportStore(store.database).put(lambda: pages)


def on_own(do: Callable[[ErasureStore], Awaitable[Any]]) -> Callable[[Store], Awaitable[Any]]:
    return lambda store: do(ErasureStore(store.database))


async def begun(store: Store) -> None:
    """Have an erasure that has not recorded its receipt."""
    await ErasureStore(store.database).begin(USER, {"sessions": 3})


async def owed(store: Store) -> OwedMemory:
    (one,) = await ErasureStore(store.database).owed_memory("ann")
    return one


async def postponed(store: Store) -> None:
    await store.postpone_memory(await owed(store), ["m2"], HOUR)


async def settled(store: Store) -> None:
    for one in await ErasureStore(store.database).owed_memory("ann"):
        await store.settle_memory(one)


CALLS_OF_USERS: dict[str, tuple[Call, ...]] = {
    "begin": (Call(nothing, on_own(lambda own: own.begin(USER, {"sessions": 2}))),),
    "finish": (Call(begun, on_own(lambda own: own.finish(USER, by="op", detail={"sessions": 3}))),),
    "put": (Call(nothing, imported),),
    "take": tuple(
        Call(lived, taking(number), answers_the_same=False, besides=UPLOADS if number != 2 else "")
        for number in range(len(PLACES))
    ),
    "take_traces": (
        Call(deleted, on_own(lambda own: own.take_traces(KEY, [KEY.session_id])), besides=UPLOADS),
    ),
    "postpone_memory": (Call(memory_owed, postponed, PURGED),),
    "settle_memory": (Call(memory_owed, settled),),
    "forget_owed": (Call(deleted, on_own(lambda own: own.forget_owed(KEY)), besides=UPLOADS),),
    "redact_acts_on": (
        Call(
            lived,
            on_own(lambda own: own.redact_acts_on(KEY, [KEY.session_id])),
            answers_the_same=False,
            besides=UPLOADS,
        ),
    ),
    "redact_acts_of": (
        Call(
            lived,
            on_own(lambda own: own.redact_acts_of(USER)),
            answers_the_same=False,
            besides=UPLOADS,
        ),
    ),
}
