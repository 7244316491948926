"""Every two things that can happen to a session at once, and what their answers promise.

The checker knows the acknowledged answers, and what the tables hold in the end. A round races one
pair on several sessions, each of a user of its own; half of them are archived before.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

from archiving import DAY, LATER, archive
from google.adk.events.event import Event
from google.genai.types import Content, Part
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from backends import T0, create, key, levels, message
from lapse.core.errors import NoSuchSessionError, WrongStatusError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status
from lapse.erasure.erasing import Erasure
from lapse.store.records import LastSeen
from parts import Store
from races import at_once

PURGE = LATER + 100 * DAY
"""When what was archived LATER is purged; what is restored then is not archived LATER."""

ANYTHING = LastSeen(PURGE, None)


@dataclass
class Raced:
    """A session in a race, and what was acknowledged; `gone_by` names who said that it is gone."""

    key: SessionKey
    was_archived: bool
    stock: object = field(default=None, repr=False)
    stored: set[str] = field(default_factory=lambda: {"m1"})
    refused: set[str] = field(default_factory=set)
    gone_by: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    exempt_as: Status | None = None
    """What it was when it was known to be exempt."""


class World:
    """Two replicas of a store, stock ADK beside them, and what each of the actors does."""

    def __init__(self, stores, stock):
        self.one, self.two = stores
        self._stock = stock
        self._number = 0

    async def have(self, number, sessions):
        """Have fresh sessions for a round."""
        made = []
        for place in range(sessions):
            one = Raced(key("s", f"u{number}-{place}"), was_archived=bool(place % 2))
            revision = await create(self.one, one.key)
            await self.one.at(T0).append(one.key, message(), revision)
            app_name, user_id, session_id = one.key
            one.stock = await self._stock.get_session(
                app_name=app_name, user_id=user_id, session_id=session_id
            )
            made.append(one)
        await archive(self.one, *(one.key for one in made if one.was_archived))
        return made

    def does(self, actor, store, one) -> Awaitable[None]:
        return ACTORS[actor](self, store, one)

    async def message(self, store: Store, one: Raced) -> None:
        name = self._name()
        try:
            await store.at(LATER).append(one.key, message(name, at=LATER), ANYTHING)
        except NoSuchSessionError:
            one.refused.add(name)
        else:
            one.stored.add(name)
            one.acknowledged.add("message")

    async def stock(self, store: Store, one: Raced) -> None:
        content = Content(role="user", parts=[Part(text="hello")])
        event = Event(id=self._name(), author="user", content=content, timestamp=LATER.timestamp())
        try:
            await self._stock.append_event(one.stock, event)
        except (ValueError, StaleDataError, IntegrityError):  # not found, or not as it was read
            one.refused.add(event.id)
        else:
            one.stored.add(event.id)
            one.acknowledged.add("stock")

    async def archive(self, store: Store, one: Raced) -> None:
        if (await archive(store, one.key)).changes:
            one.acknowledged.add("archive")

    async def restore(self, store: Store, one: Raced) -> None:
        try:
            done = await store.at(PURGE).resurrect(one.key, cause=Cause.REQUEST)
        except NoSuchSessionError:
            return
        if done.changes:
            one.acknowledged.add("restore")

    async def purge(self, store: Store, one: Raced) -> None:
        done = await store.at(PURGE).purge_archived(1)
        for change in done.changes:
            self.sessions[change.record.key].gone_by.add("purge")

    async def erase(self, store: Store, one: Raced) -> None:
        at = store.at(PURGE)
        receipt = await Erasure(at.database, one.key.user_id, end=at.delete).run("op")
        assert receipt.is_whole
        if receipt.erased.get("sessions") or not any("hold" in what for what in receipt.remains):
            one.gone_by.add("erase")

    async def pin(self, store: Store, one: Raced) -> None:
        try:
            await store.at(LATER).pin(one.key, by="op")
        except NoSuchSessionError:
            return
        one.acknowledged.add("pin")
        await self._look(store, one)

    async def hold(self, store: Store, one: Raced) -> None:
        await store.at(LATER).put_on_hold(one.key, reason="case", by="op")
        one.acknowledged.add("hold")
        await self._look(store, one)

    async def _look(self, store, one):
        found = await store.at(LATER).lifecycle(one.key)
        one.exempt_as = one.exempt_as or (found and found.status)

    async def delete(self, store: Store, one: Raced) -> None:
        try:
            done = await store.at(LATER).delete(one.key)
        except WrongStatusError:
            assert "hold" in self.pair
            return
        if done.changes:
            one.gone_by.add("delete")

    async def race(self, seed, pair, sessions):
        """Race a pair once for each session, and check what has become of it."""
        self.pair = pair
        raced = await self.have(seed, sessions)
        self.sessions = {one.key: one for one in raced}
        calls = []
        for place, one in enumerate(raced):
            stores = (self.one, self.two) if place % 4 < 2 else (self.two, self.one)
            calls += [
                self.does(actor, store, one) for actor, store in zip(pair, stores, strict=True)
            ]
        for answer in await at_once(seed, *calls):
            if answer is not None:
                raise answer
        for one in raced:
            await self.check(one)
        await self._check_levels()
        for one in raced:
            await self.one.release_hold(one.key, by="op")
            await self.one.delete(one.key)

    async def check(self, one):
        """Fail if a session is not what the answers have promised."""
        tables = await self._tables(one.key)
        told = f"{self.pair} {one}: {tables}"
        if one.gone_by:
            assert not one.exempt_as or "hold" not in one.acknowledged, told
            assert tables == (0, 0, 0, 0), told
            by_purge = one.gone_by & {"purge"}
            assert not by_purge or not one.acknowledged & {"message", "stock", "restore", "pin"}, (
                told
            )
            assert not by_purge or one.was_archived or "archive" in one.acknowledged, told
            assert "stock" not in one.acknowledged or not one.was_archived, told
            return
        in_adk, events, archived, records = tables
        assert in_adk + archived == 1 == records, told
        assert bool(events) == bool(in_adk), told
        record = await self.two.at(PURGE).lifecycle(one.key)
        assert record.status is (Status.USED if in_adk else Status.ARCHIVED), told
        if one.acknowledged & {"message", "restore"} or one.exempt_as is Status.USED:
            assert in_adk, told
        if "stock" in one.acknowledged and "archive" in self.pair:
            assert in_adk, told
        await self._check_exempt(one, told)
        await self.one.at(PURGE).resurrect(one.key, cause=Cause.REQUEST)
        found = {event.id for event in (await self.one.at(PURGE).read(one.key)).events}
        assert one.stored <= found, told
        assert not one.refused & found, told

    async def _check_exempt(self, one, told):
        """What is exempt stays as it is from the answer on."""
        if not one.acknowledged & {"pin", "hold"}:
            return
        before = await self._tables(one.key)
        late = PURGE + 900 * DAY
        assert not (await archive(self.two, one.key, now=late)).changes, told
        assert not (await self.one.at(late).purge_archived(99)).changes, told
        if "hold" in one.acknowledged:
            with suppress(WrongStatusError):
                await self.two.delete(one.key)
        assert await self._tables(one.key) == before, told

    async def _tables(self, one):
        named = {"app": one.app_name, "user": one.user_id, "id": one.session_id}
        of = "app_name = :app AND user_id = :user AND"
        (row,) = await self._stock.rows(
            f"SELECT (SELECT count(*) FROM sessions WHERE {of} id = :id) AS a, "
            f"(SELECT count(*) FROM events WHERE {of} session_id = :id) AS b, "
            f"(SELECT count(*) FROM lapse_archive WHERE {of} session_id = :id) AS c, "
            f"(SELECT count(*) FROM lapse_lobby WHERE {of} session_id = :id) AS d",
            **named,
        )
        return row["a"], row["b"], row["c"], row["d"]

    async def _check_levels(self):
        """What is counted is what there is."""
        stored = await self._stock.rows(
            "SELECT status, count(*) AS n FROM lapse_lobby GROUP BY status"
        )
        counted = {status.value: n for (_, status), n in (await levels(self.one)).items() if n}
        assert counted == {row["status"]: row["n"] for row in stored}, self.pair

    def _name(self):
        self._number += 1
        return f"e{self._number}"


ACTORS: dict[str, Callable[[World, Store, Raced], Awaitable[None]]] = {
    name: getattr(World, name)
    for name in (
        "message",
        "stock",
        "archive",
        "restore",
        "purge",
        "erase",
        "pin",
        "hold",
        "delete",
    )
}
PAIRS = list(combinations_with_replacement(ACTORS, 2))
