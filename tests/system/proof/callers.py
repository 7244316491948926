"""Callers of a server over HTTP, and the history of what they ask for and are told.

What is said has a name of its own (`history.named`), so that it is found again in the store. No
answer, and an answer that leaves it open, are `unknown`; only what says that nothing was done is
`failed`. A caller never asks two things of one session at once.
"""

import asyncio
import random
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import httpx

from history import History, Outcome, named

CALLERS = 6
BRIEF = 0.01
"""Minutes until a session expires that is left; others have half an hour."""

HASTE = 3
"""Seconds that those wait for an answer who begin a connection for each request."""

PAUSE = 0.05
"""Seconds after something that was not answered."""

LONG = 240
"""Seconds within which something has to come; the bound is there so that a round ends."""

REPEATS = 40
"""How often a request with a key is repeated at most, until it is answered."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WAYS = {"GET": (200, 404), "DELETE": (200,), "POST": (200, 404, 409)}
"""What a server in need may answer, besides 503: anything else is wrong."""


class Callers:
    """Callers that go on until they are stopped, whatever happens to their server.

    `moved` to another server, they ask that one from then on. `progress` counts what was answered,
    `troubles` what was not, or with 503.
    """

    def __init__(self, seed, app="parrot", *, lasting=True):
        self._chance = random.Random(seed)
        self._app = app
        self._lasting = lasting
        self._url = ""
        self._news = asyncio.Event()
        self.stopped = False
        self._tasks = []
        self.history = History()
        self.faults = []
        self.progress = 0
        self.troubles = 0

    def moved(self, url):
        self._url = url

    def start(self):
        self._tasks = [asyncio.create_task(self._call(n)) for n in range(CALLERS)]

    async def stop(self):
        """Let each caller finish what it asks for, and return the history."""
        self.stopped = True
        await asyncio.gather(*self._tasks)
        return self.history

    async def more(self, count, *, within=LONG):
        """Return once so many more requests were answered."""
        goal = self.progress + count
        await self._until(lambda: self.progress >= goal, within)

    async def trouble(self, count, enough, *, within=LONG):
        """Return once so many more requests were not answered, or enough were."""
        goal, most = self.troubles + count, self.progress + enough
        await self._until(lambda: self.troubles >= goal or self.progress >= most, within)

    async def _until(self, holds, within):
        async with asyncio.timeout(within):
            while not holds():
                done = [task for task in self._tasks if task.done()]
                for task in done:
                    task.result()
                self._news.clear()
                await self._news.wait()

    def say(self, *words):
        self.history.add([[str(word) for word in words]])

    async def _call(self, number):
        # Others begin a connection for each request: those wait for a descriptor of the server.
        limits = httpx.Limits(max_keepalive_connections=4 if self._lasting or number % 2 else 0)
        patience = 30 if limits.max_keepalive_connections else HASTE
        async with httpx.AsyncClient(timeout=patience, trust_env=False, limits=limits) as client:
            turn, kept = 0, None
            while not self.stopped:
                turn += 1
                one = Caller(
                    self, client, f"u{number}-{turn // 9}", f"{number}-{turn}", self._chance
                )
                if await one.live():
                    kept = one if one.is_kept else kept
                elif kept:
                    await kept.read_again()

    async def ask(self, client, method, path, **more):
        """Return the outcome, the status and the body of a request."""
        try:
            answer = await client.request(method, f"{self._url}/{path}", **more)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            await self._trouble()
            return Outcome.FAILED, 0, None
        except httpx.TransportError:
            await self._trouble()
            return Outcome.UNKNOWN, 0, None
        status = answer.status_code
        stored = _stored(answer)
        if status == 503 or (status == 500 and stored == "yes"):
            # 500 is what a repeat gets whose run has died after the agent had begun to speak.
            await self._trouble()
            return (Outcome.FAILED if stored == "no" else Outcome.UNKNOWN), status, stored
        if status not in _WAYS[method]:
            self.faults.append(f"{method} {path} was answered with {status}: {answer.text[:200]}")
            return Outcome.UNKNOWN, status, None
        if stored == "yes":  # the run was cancelled, because the server ends, when it had spoken
            await self._trouble()
            return Outcome.UNKNOWN, status, stored
        self.progress += 1
        self._news.set()
        return (Outcome.OK if status == 200 else Outcome.FAILED), status, answer.json()

    async def _trouble(self):
        self.troubles += 1
        self._news.set()
        await asyncio.sleep(PAUSE)


class Caller:
    """What is done with one session, by one caller."""

    def __init__(self, callers, client, user, name, chance):
        self._callers, self._client, self._chance = callers, client, chance
        self._user, self._name, self._app = user, name, callers._app
        self._sessions = f"apps/{self._app}/users/{user}/sessions"
        self._path = f"{self._sessions}/{name}"
        self._deadline = None
        self._is_brief = False
        self._is_unclear = False
        """Whether something may still move the deadline that nobody waits for any more."""
        self.is_kept = False
        """Whether it was spoken to, and not deleted."""

    async def live(self):
        """Have the session live through its life; return whether it was created at all."""
        chance = self._chance
        self._is_brief = chance.random() < 0.35
        if not await self._create():
            return False
        await self._look()
        if chance.random() < 0.3:
            await self._move("extend")
        if self._is_brief:
            await self._expire()
            if chance.random() < 0.5:
                await self._move("resurrect")
        if not self._is_brief or chance.random() < 0.5:
            for number in range(1, chance.randint(2, 4)):
                await self._speak(f"m{number}")
            await self._read()
            self.is_kept = True
        await self._look()
        if chance.random() < 0.3:
            self.is_kept = False
            await self._delete()
        return True

    async def read_again(self):
        """Read the session, and its record: it is still there."""
        await self._read()
        await self._look()

    def _say(self, word, *more):
        self._callers.say(word, self._name, *more)

    async def _ask(self, method, path, **more):
        return await self._callers.ask(self._client, method, path, **more)

    async def _keyed(self, method, path, **more):
        """Ask for something, half of the time with a key, and then until it is answered."""
        times = REPEATS if self._chance.random() < 0.5 else 1
        headers = {"Idempotency-Key": uuid.uuid4().hex} if times > 1 else {}
        outcomes = set()
        for _ in range(times):
            if self._is_brief and path == "run":
                self._say("runs")  # each time it looks the session up, and so has it back
                self._deadline = None
            outcome, status, body = await self._ask(method, path, headers=headers, **more)
            outcomes.add(outcome)
            self._is_unclear |= outcome is Outcome.UNKNOWN
            if outcome is Outcome.OK or body == "yes" or status == 404 or self._callers.stopped:
                break
        # What may have been done at first is not undone by a refusal of its repeat.
        unclear = outcome is Outcome.FAILED and Outcome.UNKNOWN in outcomes
        return Outcome.UNKNOWN if unclear else outcome, status, body

    async def _create(self):
        self._say("asks")
        body = {"sessionId": self._name}
        if self._is_brief:
            body["options"] = {"ttl_minutes": BRIEF}
        outcome, *_ = await self._keyed("POST", self._sessions, json=body)
        if outcome is Outcome.FAILED:
            self._say("failed")
        if outcome is Outcome.OK:
            self._say("waits")
        return outcome is Outcome.OK

    async def _speak(self, message):
        answered = f"{message}-heard"
        self._say("asks", message)
        self._say("asks", answered)
        body = {
            "appName": self._app,
            "userId": self._user,
            "sessionId": self._name,
            "newMessage": {"role": "user", "parts": [{"text": message}]},
        }
        outcome, status, body = await self._keyed("POST", "run", json=body)
        if status == 404:
            self._say("missing")
        elif outcome is Outcome.OK:
            self._say("heard", message)
            self._say("heard", answered)
        elif body == "yes":
            self._say("heard", message)
        elif outcome is Outcome.FAILED and status != 409:
            # A 409 may be the answer's, whose message is stored.
            self._say("failed", message)
            self._say("failed", answered)

    async def _read(self):
        outcome, status, body = await self._ask("GET", self._path)
        if outcome is Outcome.OK:
            texts = [
                part["text"]
                for event in body["events"]
                for part in (event.get("content") or {}).get("parts", ())[:1]
            ]
            self._say("shown", *map(named, texts))
        elif status == 404:
            self._say("hidden")

    async def _look(self):
        """Look at the record, and say what it says of the deadline."""
        began, known = _now(), self._deadline
        outcome, status, body = await self._ask("GET", f"{self._path}/lifecycle")
        if status == 404:
            self._say("missing")
        if outcome is not Outcome.OK:
            return
        if body["status"] == "waiting":
            if known is not None:
                self._say("lives", _seconds(began - known))
            self._waits(body)
        if body["status"] == "expired":
            # Where an extension was not answered the deadline is the record's own.
            self._say("gone", _seconds(_now() - (known or _moment(body["expiresAt"]))))

    def _waits(self, body):
        if self._is_unclear:
            self._say("waits")
            return
        self._deadline = _moment(body["expiresAt"])
        self._say("waits", (self._deadline - _EPOCH) // timedelta(microseconds=1))

    async def _move(self, how):
        self._say("moves")
        self._deadline = None
        outcome, status, body = await self._ask("POST", f"{self._path}/lifecycle/{how}")
        self._is_unclear |= outcome is Outcome.UNKNOWN
        if status == 404:
            self._say("missing")
        if outcome is Outcome.OK and body["status"] == "waiting":
            self._waits(body)

    async def _expire(self):
        """Leave the session until its deadline, and see that it is gone."""
        deadline = self._deadline or _now() + timedelta(minutes=BRIEF)
        await asyncio.sleep(max((deadline - _now()).total_seconds(), 0))
        await self._look()

    async def _delete(self):
        self._say("deletes")
        outcome, *_ = await self._ask("DELETE", self._path)
        if outcome is Outcome.OK:
            self._say("deleted")
        if outcome is Outcome.FAILED:
            self._say("kept")


def _stored(answer):
    """Return what an error says of what was asked for: `yes`, `no`, `unknown`, or None."""
    with suppress(ValueError, AttributeError):
        return answer.json().get("stored")


def _now():
    return datetime.now(UTC)


def _moment(text):
    return datetime.fromisoformat(text)


def _seconds(span):
    return f"{span.total_seconds():.6f}"
