"""Announcements: a replica tells the others which sessions it changed, where the store can."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Final

from lapse.core.keys import SessionKey
from lapse.store.database import Database

_CHANNEL: Final = "lapse_changes"

_TOGETHER: Final = 400
"""The maximum of sessions in one text, which has at most 7,999 bytes."""


class Announcements:
    """Sends announcements to other replicas, and hears theirs.

    An announcement holds a random name of its sender and digests of keys. It is a hint and may be
    lost. On a store that cannot notify, both methods are no-ops.

    The sender gets its name when it begins to listen: processes that are forked from one another
    later must not have one name, or they would not hear each other.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sender = ""

    async def announce(self, keys: Collection[SessionKey]) -> None:
        """Tell other replicas that these sessions changed.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        digests = [key.digest for key in keys]
        texts = (
            ",".join([self._sender, *digests[start : start + _TOGETHER]])
            for start in range(0, len(digests), _TOGETHER)
        )
        await self._database.notify(_CHANNEL, texts)

    def listen(self, heard: Callable[[Collection[str]], None]) -> AbstractAsyncContextManager[None]:
        """Call `heard` with the digests that other replicas announce, inside the context."""
        self._sender = secrets.token_hex(4)

        def hear(text: str) -> None:
            sender, *digests = text.split(",")
            if sender != self._sender:
                heard(digests)

        return self._database.listen(_CHANNEL, hear)
