"""A history of what callers asked for and were told, and what must then be stored.

The history is taken outside the servers, and the checker knows nothing of their code: it reads
ADK's tables and the lobby's by SQL. Each operation is `ok`, `failed` or `unknown`: it was asked
for, and no answer came. A history is lines, which a process prints before and after each call:

    asks SESSION              it is about to create a session
    waits SESSION [DEADLINE]  the session was created, with a deadline
    asks SESSION EVENT        it is about to append an event; one whose id begins with `m` is a
                              message, any other is not
    heard SESSION EVENT       the event was appended
    failed SESSION [EVENT]    it was refused, and nothing was done
    expired SESSION LATENESS  a sweep has expired the session, so many seconds after its deadline

Callers over HTTP also print what they were shown, and what else they do:

    moves SESSION             it is about to extend or resurrect the session; until it `waits`
                              again its deadline is not known
    runs SESSION              it is about to run in the session, which does the same, and has the
                              session back as often as it expires before its message is there
    deletes SESSION           it is about to delete the session, and asks nothing of it afterwards
    deleted SESSION           the session was deleted
    kept SESSION              the deletion was refused, and nothing was done
    shown SESSION [EVENT...]  a reader was shown the session with these events
    hidden SESSION            a reader was told that there is no such session
    missing SESSION           its record was asked for, and there is none
    gone SESSION LATENESS     it was told to have expired, so many seconds after its deadline
    lives SESSION LATENESS    it was told to wait, and was asked for so long after its deadline
"""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum

from postgres import rows

_EVENTS = "SELECT session_id, id FROM events ORDER BY session_id, timestamp, id"
_TEXTS = {
    "sqlite": """
    SELECT session_id, event_data ->> '$.content.parts[0].text' FROM events
    ORDER BY session_id, timestamp, id
    """,
    "postgresql": """
    SELECT session_id, event_data #>> '{content,parts,0,text}' FROM events
    ORDER BY session_id, timestamp, id
    """,
}
_LOBBY = "SELECT session_id, status, held_events, resurrections FROM lapse_lobby"
_DEADLINES = {
    "sqlite": "SELECT session_id, expires_at FROM lapse_lobby WHERE status = 'waiting'",
    "postgresql": """
    SELECT session_id, (extract(epoch FROM expires_at) * 1000000)::bigint
    FROM lapse_lobby WHERE status = 'waiting'
    """,
}


OTHERS = {"clock", "listening"}

OF_A_RUN = 7
"""How often a run may resurrect: ADK looks the session up twice, each of these looks has an expired
session back three times at most, and its message does so once."""


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass
class Session:
    """What was asked about one session, and what was told."""

    created: Outcome = Outcome.UNKNOWN
    deadline: int | None = None
    """Its deadline in microseconds, where its creator was told one."""
    events: dict[str, Outcome] = field(default_factory=dict)
    """Each event in the order in which it was asked for."""
    latenesses: list[float] = field(default_factory=list)
    moves: int = 0
    runs: int = 0
    has_expired: bool = False
    """Whether it was told to have expired, and not to wait since."""
    revivals: int = 0
    """How often it was told to wait, or was spoken to, after it was told to have expired."""
    deletion: Outcome | None = None
    """None: nobody has asked for it, or it was refused."""
    shown: list[str] = field(default_factory=list)
    """What is wrong with what readers were shown."""

    def of(self, *outcomes):
        return [name for name, outcome in self.events.items() if outcome in outcomes]

    @property
    def has_message(self):
        return any(name.startswith("m") for name in self.of(Outcome.OK))

    def revive(self):
        self.revivals += self.has_expired
        self.has_expired = False

    def take(self, word, more):
        """Take a line of its history, and return whether it is one."""
        match word, more:
            case "asks", []:
                pass
            case "asks", [event]:
                self.events.setdefault(event, Outcome.UNKNOWN)
            case "waits", _:
                self.created = Outcome.OK
                self.revive()
                self.deadline = int(more[0]) if more else None
            case "heard", [event]:
                self.events[event] = Outcome.OK
                self.revive()
            case "failed", []:
                self.created = Outcome.FAILED
            case "failed", [event]:
                self.events[event] = Outcome.FAILED
            case "expired", [lateness]:
                self.latenesses.append(float(lateness))
            case _:
                return self._take_of_caller(word, more)
        return True

    def _take_of_caller(self, word, more):
        match word, more:
            case "moves" | "runs", []:
                self.moves += word == "moves"
                self.runs += word == "runs"
                self.deadline = None
            case "deletes", []:
                self.deletion = Outcome.UNKNOWN
            case "deleted" | "kept", []:
                self.deletion = Outcome.OK if word == "deleted" else None
            case ("shown", _) | ("hidden" | "missing", []) | ("gone" | "lives", [_]):
                self.shown += self._wrong(word, more)
                self.has_expired |= word == "gone"
            case _:
                return False
        return True

    def _wrong(self, word, more):
        """Compare what a reader was shown with what was acknowledged before."""
        if word == "shown":
            yield from self._wrong_events(more)
        if word == "hidden" and self.has_message:
            yield "it has an acknowledged message, and is hidden"
        if word == "missing" and self.created is Outcome.OK:
            yield "it was created, and is told to be unknown"
        if word == "gone" and self.has_message:
            yield "it has an acknowledged message, and is told to be expired"
        if word == "gone" and float(more[0]) < 0:
            yield f"it is told to be expired {-float(more[0])} s early"
        if word == "lives" and float(more[0]) > 0:
            yield f"it is told to wait {more[0]} s after its deadline"

    def _wrong_events(self, shown):
        wanted = self.of(Outcome.OK)
        if [event for event in shown if event in wanted] != wanted:
            yield f"{wanted} were acknowledged, and {shown} are shown"
        for event in shown:
            if self.events.get(event, Outcome.FAILED) is Outcome.FAILED:
                yield f"{event} is shown, and was refused or never asked for"


@dataclass(frozen=True)
class Stored:
    """What is stored of one session."""

    status: str | None = None
    events: tuple[str, ...] = ()
    deadline: int | None = None
    resurrections: int = 0


@dataclass
class History:
    sessions: dict[str, Session] = field(default_factory=dict)
    operations: int = 0

    def add(self, lines):
        """Add what a process has printed, each line in words; OTHERS are not about sessions."""
        for word, name, *more in (line for line in lines if line[0] not in OTHERS):
            if not self.sessions.setdefault(name, Session()).take(word, more):
                raise ValueError(f"{word} {name} {more} is no line of a history")
            self.operations += word in {"asks", "moves", "runs", "deletes"}

    @classmethod
    def of(cls, *processes):
        made = cls()
        for lines in processes:
            made.add(lines)
        return made

    def faults(self, stored, *, purged=False, outage=False):
        """Return what is wrong with what is stored.

        With `purged`, all that ever ends has ended. With `outage`, a creation may have been done
        twice: its answer was lost, its session expired, and the repeat created it anew. Then it
        expires once more.
        """
        found = [f"{name} was never asked for" for name in stored.keys() - self.sessions.keys()]
        for name, asked in self.sessions.items():
            there = stored.get(name, Stored())
            found += [f"{name}: {fault}" for fault in _faults(asked, there, purged=purged)]
            if len(asked.latenesses) > 1 + outage:
                found.append(f"{name}: it expired {len(asked.latenesses)} times")
        return found


def _faults(asked, there, *, purged):
    yield from asked.shown
    if asked.deletion is Outcome.OK and there != Stored():
        yield f"it was deleted, and is {there.status} with {list(there.events)}"
    elif asked.deletion is None or there != Stored():
        yield from _faults_of_kept(asked, there, purged=purged)


def _faults_of_kept(asked, there, *, purged):
    if asked.has_message and there.status != "used":
        yield f"it has an acknowledged message, and is {there.status}"
    if there.status is None:
        if asked.created is Outcome.OK and not purged:
            yield "it was created, and is gone"
        if there.events:
            yield "its events are stored without it"
        return
    if asked.created is Outcome.FAILED:
        yield "its creation was refused, and it is there"
    if purged and there.status != "used":
        yield f"it is {there.status} for ever"
    if there.resurrections < asked.revivals:
        yield f"it was resurrected {there.resurrections} times, and {asked.revivals} were seen"
    most = asked.moves + asked.runs * OF_A_RUN
    if (asked.moves or asked.runs) and there.resurrections > most:
        yield f"it was resurrected {there.resurrections} times, where {most} were asked for at most"
    yield from _faults_of_events(asked, there)
    yield from _faults_of_time(asked, there)


def _faults_of_events(asked, there):
    for event, times in Counter(there.events).items():
        if times > 1:
            yield f"{event} is stored {times} times"
        if asked.events.get(event, Outcome.FAILED) is Outcome.FAILED:
            yield f"{event} is stored, and was refused or never asked for"
    wanted = asked.of(Outcome.OK)
    if [event for event in there.events if event in wanted] != wanted:
        yield f"{wanted} were acknowledged, and {list(there.events)} are stored"
    is_used = any(event.startswith("m") for event in there.events)
    if is_used is not (there.status == "used"):
        yield f"it is {there.status} with {list(there.events)}"


def _faults_of_time(asked, there):
    if there.deadline is not None and asked.deadline not in {None, there.deadline}:
        yield f"its deadline was {asked.deadline}, and is {there.deadline}"
    if any(late < 0 for late in asked.latenesses):
        yield f"it expired {-min(asked.latenesses)} s early"


def stored_at(url, *, texts=False):
    """Return what a database holds of each session.

    With `texts` an event has the name that its text begins with: what is said over HTTP gets its
    id from the server. `heard: m1` is `m1-heard`, and an event without a text is left out.
    """
    scheme = url.partition(":")[0]
    asked = _LOBBY, _TEXTS[scheme] if texts else _EVENTS, _DEADLINES[scheme]
    if scheme == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            lobby, events, deadlines = (connection.execute(query).fetchall() for query in asked)
    else:
        lobby, events, deadlines = (rows(url, query) for query in asked)
    kept = {}
    for name, event in events:
        if texts:
            event = named(event)  # noqa: PLW2901 - from here on, by its name
        if event is not None:
            kept.setdefault(name, []).append(event)
    due = dict(deadlines)
    stored = {}
    for name, status, held, resurrections in lobby:
        here = kept.pop(name, None) or _held(held, texts=texts)
        stored[name] = Stored(status, tuple(here), due.get(name), resurrections)
    return stored | {name: Stored(None, tuple(here)) for name, here in kept.items()}


def _held(held, *, texts):
    return [] if texts else [event["id"] for event in json.loads(held or "[]")]


def named(text):
    """Return what a history calls what was said; None if it has no name there."""
    if text is None:
        return None
    return f"{text[7:]}-heard" if text.startswith("heard: ") else text
