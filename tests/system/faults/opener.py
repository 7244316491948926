"""Opens a store at each URL it is told, uses and closes it, and says how that went."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "support"))

from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from parts import store_with_parts


async def visit(url: str) -> None:
    store = store_with_parts(url)
    await store.open()
    key = SessionKey("app", "ann", str(os.getpid()))
    await store.create(key, state=StateDelta(), ttl=timedelta(minutes=30), metadata={})
    await store.close()


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


say("ready")
for line in sys.stdin:
    try:
        asyncio.run(visit(line.strip()))
        say("came up")
    except Exception as error:  # noqa: BLE001 - the parent shows it
        say(repr(error))
