"""The second of two processes that race: `python racer.py URL [broken]`.

Each line it reads is a list of acts; it does all of them at once, and prints what they answered.
"""

import asyncio
import base64
import pickle
import sys
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("support", "system/model"))

from acts import do_all

from parts import store_with_parts
from wrong_sweeps import sweep_wrongly


def written(value) -> str:
    return base64.b64encode(pickle.dumps(value)).decode() + "\n"


def read(line):
    return pickle.loads(base64.b64decode(line))


async def main(url, *broken):
    if broken:
        sweep_wrongly()
    store = store_with_parts(url)
    await store.open()
    loop = asyncio.get_running_loop()
    sys.stdout.write(written("ready"))
    sys.stdout.flush()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        sys.stdout.write(written(await do_all(store, read(line))))
        sys.stdout.flush()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
