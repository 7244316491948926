"""Locks on a name, for operations that must follow each other and find no row to lock."""

from __future__ import annotations

from typing import Final
from zlib import crc32

from lapse.store.operation import Asking, rows

_PLACES: Final = 4096
"""How many rows there are to lock where a server has no advisory locks. Two names that share one
wait for each other, for as long as a transaction takes."""


def locked(name: str) -> Asking[None]:
    """Make others who lock this name wait until the end of the transaction.

    It is the first thing that a transaction does, and it locks one name only, so that no two wait
    for each other. The next statement sees what they have committed before.
    """
    # Place 0 is the schema's.
    yield from rows(
        "lock", lock=name, lock_place=1 + crc32(name.encode(errors="surrogatepass")) % _PLACES
    )
