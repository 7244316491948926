"""Random steps on a store and on the model; a seed repeats them.

    python tests/system/model/drive.py [--url URL] [--seed SEED] [--runs N] [--steps N]

A run that fails prints its seed and its last steps. The store at URL must be empty; without
one, every run has a store in memory.
"""

import argparse
import asyncio
import random
import sys
from datetime import timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "support"))

from comparison import JUMPS, KEYS, KINDS, METADATA, SEEN, STATES, TTLS, Comparison

from backends import TICK
from lapse.core.lifecycle import Cause, Rules
from lapse.core.messages import UsedBy
from parts import store_with_parts

RULES = (Rules(), Rules(horizon=timedelta(0)), Rules(enforced=False))
MEMORY = "sqlite:///:memory:"
CHOICES = {
    "create": (KEYS, TTLS, STATES, METADATA, tuple(UsedBy)),
    "append": (KEYS, tuple(KINDS), (TICK, 0 * TICK, -TICK), STATES, SEEN),
    "repeat": (KEYS, (0, 1, 2)),
    "delete": (KEYS,),
    "extend": (KEYS,),
    "hold_off": ((TICK, TTLS[1]),),
    "restart_ttl": (KEYS, (TICK, TTLS[1])),
    "amend": (KEYS, (None, *METADATA), (None, *TTLS)),
    "resurrect": (KEYS, tuple(Cause)),
    "expire_due": ((1, 2, 3),),
    "expire_backlog": ((1, 2, 3),),
    "purge_due": ((1, 2, 3),),
    "pass_time": (JUMPS,),
    "go_to_a_deadline": ((0, 1, 2, 3), (0 * TICK, TICK)),
}
OFTEN = ("append", "append", "create", "expire_due", "go_to_a_deadline")


async def run_random_steps(seed: int, steps: int, url: str = MEMORY) -> Comparison:
    """Take `steps` random steps on the store at `url` and return the comparison."""
    chance = random.Random(seed)
    store = store_with_parts(url, chance.choice(RULES))
    await store.open()
    try:
        taken = Comparison(store)
        for _ in range(steps):
            name = chance.choice((*CHOICES, *OFTEN))
            arguments = [chance.choice(choice) for choice in CHOICES[name]]
            taken.steps.append(f"{name}{tuple(arguments)}")
            try:
                done = getattr(taken, name)(*arguments)
                if done is not None:
                    await done
                await taken.compare()
            except Exception as error:
                last = "\n  ".join(taken.steps[-12:])
                error.add_note(f"seed {seed}, step {len(taken.steps)}; the last steps:\n  {last}")
                raise
        return taken
    finally:
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default=MEMORY)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    chosen = parser.parse_args()
    for seed in range(chosen.seed, chosen.seed + chosen.runs):
        sys.stdout.write(f"seed {seed}\n")
        asyncio.run(run_random_steps(seed, chosen.steps, chosen.url))


if __name__ == "__main__":
    main()
