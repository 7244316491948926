"""The table of nemeses: what each does, the figure asked for, and the builds that it must catch."""

import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.extend(
    str(Path(__file__).parents[2] / folder)
    for folder in (
        "support",
        "system/model",
        "system/faults",
        "system/replicas",
        "conversations",
        "retention",
        "system/proof",
    )
)

import crashes
import disordered
import disturbed
import killed
import kills
import pairs
import pairs_at_once
import power
import scarce
import simulation
import soak
from breaking import BREAKS, break_on_purpose
from killing import play as play_hand_over
from worlds import World, other_service

from backends import BACKENDS
from breaks import rewritten
from odd_service import DoublingService
from parts import store_with_parts
from stores import stock_on

KINDS = {backend.name: backend for backend in BACKENDS}
PER_OPERATION = 50
RACES = 40


@dataclass(frozen=True)
class Nemesis:
    """One way to look for a violation.

    Attributes:
        name: what it is called on the command line.
        does: what it does, as a phrase.
        unit: what is counted.
        asked: how many of them are asked for.
        figure: what `asked` is counted as: all nemeses that name it have to reach it together.
            None: the nemesis has to reach it by itself.
        play: plays the round of a seed in a folder, on a build that is broken on purpose if a name
            is given, and returns how many it has counted. It raises what it finds.
        breaks: the builds that it must catch.
        share: how much of the time it has, beside the others.
        lasts: whether a round takes as many seconds as it is given (`seconds=`).
        together: how many rounds are played at once in its process: those that wait more than they
            work, and never block the loop for long.
    """

    name: str
    does: str
    unit: str
    asked: int
    play: Callable[[int, Path, str | None], Awaitable[int]]
    breaks: tuple[str, ...]
    share: int = 1
    lasts: bool = False
    together: int = 1
    figure: str | None = None


async def race_retention(seed, folder, broken=None):
    """Race pairs of what happens to conversations, on two replicas in one process."""
    chance = random.Random(seed)
    backend = KINDS["sqlite" if broken else ("sqlite", "postgres")[seed % 2]]
    broken_statement = ("delete_archived", "DELETE FROM lapse_archive", "DELETE FROM lapse_holds")
    with backend.empty(folder / f"retention-{seed}") as url:
        async with stock_on(url) as stock:
            stores = store_with_parts(url), store_with_parts(url)
            world = pairs.World(stores, stock)
            try:
                with rewritten(*broken_statement) if broken else nullcontext():
                    for number in range(RACES // 8):
                        await world.race(number, chance.choice(pairs.PAIRS), 8)
            finally:
                for store in stores:
                    await store.close()
    return RACES


async def hand_over(seed, folder, broken=None):
    """Stop one hand-over of a first message to another service at a step of it."""
    backend = KINDS[("memory", "sqlite", "postgres")[seed % 3]]
    with backend.empty(folder / f"hand-over-{seed}") as url:
        store = store_with_parts(url)
        async with other_service("memory", folder) as inner:
            world = World(store, DoublingService() if broken else inner)
            try:
                faults = await play_hand_over(
                    world, seed, change=lambda process: break_on_purpose(process, broken)
                )
            finally:
                await world.close()
                await store.close()
    assert not faults, "\n".join(map(str, faults))
    return 1


NEMESES = (
    Nemesis(
        "simulation",
        "One seed drives clock, order, faults and crashes of the real operations on SQLite in "
        "memory, beside the pure model.",
        "steps",
        10_000_000,
        simulation.play,
        simulation.BREAKS,
        share=8,
    ),
    Nemesis(
        "races",
        "Every two operations on the lobby at once, from two processes on SQLite and PostgreSQL; "
        "the outcome must be that of one order of the two.",
        "pairs",
        1_000_000,
        pairs_at_once.play,
        ("a sweep that does not repeat its condition",),
        share=5,
        figure="pairs",
    ),
    Nemesis(
        "retention",
        "Every two of message, stock ADK's append, archive, restore, purge, erase, pin, hold and "
        "delete at once, on two replicas in one process.",
        "pairs",
        1_000_000,
        race_retention,
        ("a delete that leaves the archive's row",),
        share=3,
        figure="pairs",
    ),
    Nemesis(
        "hand-over",
        "A first message's hand-over to another service is killed or stands still at any step, "
        "and others go on.",
        "stops",
        1_000_000,
        hand_over,
        BREAKS,
        share=2,
        figure="pairs",
    ),
    Nemesis(
        "kill",
        "`kill -9` of a process that writes to an SQLite file.",
        "kills",
        1_000,
        kills.play,
        ("early",),
        share=2,
    ),
    *(
        Nemesis(
            name,
            does,
            "kills",
            1_000,
            partial(killed.play, workers=workers),
            breaks,
            share=3,
            figure="kills of servers",
        )
        for name, workers, breaks, does in (
            (
                "kill-server",
                1,
                ("early", "by halves"),
                "`kill -9` of `lapse serve` on SQLite, whose callers keep their history over HTTP.",
            ),
            (
                "kill-workers",
                2,
                ("early",),
                "`kill -9` of one of two workers, of their parent or of all, with such callers.",
            ),
        )
    ),
    Nemesis(
        "crash",
        "PostgreSQL is stopped immediately under three replicas.",
        "crashes",
        500,
        crashes.crash,
        ("unflushed",),
        share=2,
    ),
    Nemesis(
        "failover",
        "The primary is killed, and its synchronous standby, hung or not, is promoted.",
        "failovers",
        100,
        crashes.fail_over,
        ("asynchronous",),
        share=2,
    ),
    *(
        Nemesis(
            fault.replace(" ", "-"),
            f"The way to PostgreSQL is disturbed in each operation that writes: {fault}.",
            "hits",
            PER_OPERATION * len(disturbed.AIMS),
            partial(disturbed.play, fault=fault),
            (broken,),
            together=8,
        )
        for fault, broken in disturbed.FAULTS.items()
    ),
    Nemesis(
        "clocks",
        "Replicas' clocks are wrong by up to 262 s either way, or jump.",
        "clocks",
        50,
        disordered.clocks,
        ("host",),
    ),
    Nemesis(
        "pauses",
        "Replicas are stopped with SIGSTOP at any moment, and go on.",
        "stops",
        50,
        disordered.pauses,
        ("wrong",),
    ),
    Nemesis(
        "power",
        "The power is cut under SQLite; what was written since the last sync is there, missing or "
        "torn.",
        "cuts",
        10_000,
        power.play,
        ("unflushed",),
        share=2,
    ),
    Nemesis(
        "full-disk",
        "The disk of a loaded `lapse serve` on SQLite is filled, and has room again.",
        "times",
        50,
        partial(scarce.disk, store="sqlite"),
        ("a failure that is swallowed",),
    ),
    Nemesis(
        "full-postgres",
        "The disk of PostgreSQL is filled under a loaded `lapse serve`, so that it refuses or ends "
        "itself, and has room again.",
        "times",
        50,
        partial(scarce.disk, store="postgres"),
        ("unflushed",),
    ),
    Nemesis(
        "descriptors",
        "A loaded `lapse serve` on SQLite or PostgreSQL can open no socket and no file, on "
        "PostgreSQL when its connections have just been closed, and later it can again.",
        "times",
        50,
        scarce.descriptors,
        ("a session that cannot be read is none",),
    ),
    *(
        Nemesis(
            f"soak-{store}",
            f"Mixed load on a server on {name}: memory, descriptors, threads and tasks.",
            "seconds",
            7_200,
            partial(soak.play, store=store),
            ("leak",),
            share=7,
            lasts=True,
        )
        for store, name in (("sqlite", "SQLite"), ("postgres", "PostgreSQL"))
    ),
)
BY_NAME = {nemesis.name: nemesis for nemesis in NEMESES}
