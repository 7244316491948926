"""A server under mixed load for as long as it is given: what of it grows.

Its memory, descriptors, threads and tasks are read while nobody asks, after a warm-up and in the
end: there they may not have grown. Under the load, from the warm-up on, they and the p99 of the
answers are taken in windows, and a line is laid through the windows: its slope is told with its
uncertainty, and nothing asserts it. The load is that of pages: sessions that are created and left,
extended, expired and had back, watched over a stream, spoken to, read, listed and deleted.
"""

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from math import sqrt
from pathlib import Path
from statistics import linear_regression, mean

import httpx

from postgres import database
from serving import Server

AGENTS = Path(__file__).parents[2] / "support" / "soak_agents"
CALLERS = 6
LONG = 60
REST = 0.2
"""Seconds that each page rests after a call in a soak of more than LONG seconds. The pages do not
saturate the server then, so what grows is not hidden in queues; and other rows have the cores."""

WARM = 0.4
"""The share of the time after which caches are full enough to look at what grows."""

MOST_PER_CALL = 20 * 1024
"""Bytes of memory a call may leave behind; a server that fills its caches leaves some."""

AT_ONCE = 2 << 20
"""Bytes that it may take besides: memory comes in arenas, and few calls cannot be judged by one."""

MOST_MORE = 12
"""Descriptors, threads or tasks that there may be more, each: pools that open one more."""

WINDOWS = 10
"""Parts of the time after the warm-up through which the lines are laid."""

STUDENT = {4: 4.303, 5: 3.182, 6: 2.776, 7: 2.571, 8: 2.447, 9: 2.365, 10: 2.306}
"""The 97.5 % point of Student's t by the number of points, for a line of two parameters."""

SAMPLES = 4
"""How often a window looks at the server."""

BRIEF = 0.01
"""Minutes of a session that expires while its page is open."""

measured = {}
"""What the last soak of each store has shown."""


class Soak:
    def __init__(self, server, seed, broken, rest):
        self._server, self._says, self._rest = server, "leak" if broken else "hello", rest
        self._chance = random.Random(seed)
        self.calls = Counter()
        self.times = []
        self.samples = []
        self.faults = []

    async def load(self, until):
        limits = httpx.Limits(max_connections=CALLERS * 2)
        async with httpx.AsyncClient(
            base_url=self._server.url, timeout=60, trust_env=False, limits=limits
        ) as client:
            await asyncio.gather(*(self._page(client, n, until) for n in range(CALLERS)))

    async def _page(self, client, number, until):
        turn = 0
        while time.monotonic() < until:
            turn += 1
            user = f"u{number}-{turn % 20}"
            path = f"/apps/teller/users/{user}/sessions"
            kind = self._chance.choice(("left", "left", "brief", *("spoken",) * 4))
            options = {"options": {"ttl_minutes": BRIEF}} if kind == "brief" else {}
            made = await self._ask(client, "create", "POST", path, json=options)
            session = f"{path}/{made.json()['id']}"
            if kind == "left":
                continue
            if kind == "brief":
                await asyncio.sleep(BRIEF * 60)
                await self._ask(client, "resurrect", "POST", f"{session}/lifecycle/resurrect")
            if self._chance.random() < 0.3:
                await self._watch(client, session)
            await self._speak(client, user, session)
            await self._ask(client, "list", "GET", path)
            if self._chance.random() < 0.6:
                await self._ask(client, "delete", "DELETE", session)

    async def _speak(self, client, user, session):
        body = _said(user, session.rpartition("/")[2], self._says)
        if self._chance.random() < 0.3:
            await self._ask(client, "lifecycle", "GET", f"{session}/lifecycle")
        for _ in range(self._chance.randint(1, 3)):
            await self._ask(client, "run", "POST", "/run", json=body)
        read = await self._ask(client, "get", "GET", session)
        if not read.json()["events"]:
            self.faults.append(f"{session} was spoken to, and has no events")

    async def _watch(self, client, session):
        """Read the first notice of a stream while the session is extended, and leave."""
        self.calls["notices"] += 1
        async with client.stream("GET", f"{session}/lifecycle/events") as stream:
            if stream.status_code != 200:
                self.faults.append(f"notices was answered with {stream.status_code}")
            await anext(stream.aiter_lines())
            # Of a brief session the deadline may have come again by now.
            await self._ask(client, "extend", "POST", f"{session}/lifecycle/extend", also=(409,))

    async def _ask(self, client, name, method, path, *, also=(), **more):
        began = time.monotonic()
        answer = await client.request(method, path, **more)
        self.times.append((began, time.monotonic() - began))
        self.calls[name] += 1
        if answer.status_code not in {200, *also}:
            self.faults.append(f"{name} was answered with {answer.status_code}")
        await asyncio.sleep(self._rest)
        return answer

    async def levels(self):
        """Return what the server takes."""
        async with httpx.AsyncClient(
            base_url=self._server.url, timeout=60, trust_env=False
        ) as client:
            made = await client.post("/apps/teller/users/look/sessions", json={})
            session = made.json()["id"]
            (event,) = (await client.post("/run", json=_said("look", session, "look"))).json()
            await client.delete(f"/apps/teller/users/look/sessions/{session}")
        tasks = int(event["content"]["parts"][0]["text"])
        return _taken_by(self._server.process.pid) | {"tasks": tasks}

    async def look(self, every):
        """Take samples of the levels, each with its moment, until it is cancelled."""
        while True:
            self.samples.append((time.monotonic(), await self.levels()))
            await asyncio.sleep(every)


def _said(user, session, text):
    return {
        "appName": "teller",
        "userId": user,
        "sessionId": session,
        "newMessage": {"role": "user", "parts": [{"text": text}]},
    }


def slope(points):
    """Return the slope of a line through points, and the half of its 95 % interval; None if few."""
    if len(points) not in STUDENT:
        return None
    x, y = zip(*points, strict=True)
    line = linear_regression(x, y)
    rest = sum((b - line.intercept - line.slope * a) ** 2 for a, b in points) / (len(points) - 2)
    return line.slope, STUDENT[len(points)] * sqrt(rest / sum((a - mean(x)) ** 2 for a in x))


def _slopes(soak, began, ended):
    """Return the slope by the hour of each level and of the p99, from window to window."""
    length = (ended - began) / WINDOWS
    points = {}
    for n in range(WINDOWS):
        first, last = began + n * length, began + (n + 1) * length
        middle = (first + last) / 2 / 3600
        samples = [levels for moment, levels in soak.samples if first <= moment < last]
        for name in samples[0] if samples else ():
            points.setdefault(name, []).append((middle, mean(one[name] for one in samples)))
        if times := [one for one in soak.times if first <= one[0] < last]:
            points.setdefault("p99", []).append((middle, _p99(times)))
    return {name: slope(several) for name, several in points.items()}


def _taken_by(pid):
    """Return the memory, descriptors and threads of a process."""
    process = Path(f"/proc/{pid}")
    told = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    return {
        "memory": int(told["VmRSS"].split()[0]) * 1024,
        "descriptors": len(list((process / "fd").iterdir())),
        "threads": int(told["Threads"]),
    }


def _p99(times):
    ordered = sorted(took for _, took in times)
    return ordered[int(len(ordered) * 0.99)] if ordered else 0.0


async def play(seed, folder, broken=None, *, store, seconds=8.0):
    """Soak a server for so long; return the seconds, and raise what has grown."""
    here = folder / f"soak-{store}-{seed}"
    here.mkdir()
    if store == "sqlite":
        return await _soak(seed, here, f"sqlite:///{here}/lapse.db", broken, seconds)
    with database() as url:
        return await _soak(seed, here, url, broken, seconds)


async def _soak(seed, here, url, broken, seconds):
    server = await asyncio.to_thread(Server, here, str(AGENTS), "--store", url, fresh=True)
    try:
        soak = Soak(server, seed, broken, rest=REST if seconds > LONG else 0)
        began = time.monotonic()
        await soak.load(began + seconds * WARM)
        warm, calls = await soak.levels(), soak.calls.total()
        loaded = time.monotonic()
        looking = asyncio.create_task(soak.look(seconds * (1 - WARM) / WINDOWS / SAMPLES))
        await soak.load(began + seconds)
        ended = time.monotonic()
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        late = await soak.levels()
    finally:
        await asyncio.to_thread(server.stop)
    grown = {name: late[name] - warm[name] for name in late}
    more = max(soak.calls.total() - calls, 1)
    tenths = [
        [one for one in soak.times if n <= (one[0] - began) / seconds * 10 < n + 1]
        for n in range(10)
    ]
    measured[url.partition(":")[0]] = {
        "seconds": seconds,
        "calls": soak.calls.total(),
        "bytes a call": grown["memory"] / more,
        **{
            name: (warm[name], late[name]) for name in ("memory", "descriptors", "threads", "tasks")
        },
        "p99 by tenth": [_p99(one) for one in tenths],
        "slopes": _slopes(soak, loaded, ended),
    }
    faults = soak.faults[:9]
    faults += [
        f"{name} grew from {warm[name]} to {late[name]} in {more} calls"
        for name in ("descriptors", "threads", "tasks")
        if grown[name] > MOST_MORE
    ]
    if grown["memory"] > MOST_PER_CALL * more + AT_ONCE:
        faults.append(f"a call leaves {grown['memory'] / more:.0f} bytes of memory behind")
    assert not faults, "\n".join(faults)
    return round(seconds)
