"""What a part of the SQLite store needs of the whole: to read and to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from lapse.core.keys import SessionKey
from lapse.store.sqlite.transaction import Transaction

T = TypeVar("T")


class SqlitePart(ABC):
    """Work in a transaction of the store, about one session or about none."""

    @abstractmethod
    async def _read(self, work: Callable[[Transaction], T], key: SessionKey | None = None) -> T: ...

    @abstractmethod
    async def _write(
        self,
        work: Callable[[Transaction], T],
        key: SessionKey | None = None,
        *,
        flushed: bool = True,
    ) -> T: ...
