"""The notes by which a repeat after a broken connection finds that its work is done."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lapse.store.operation import Asking, Part, operation, rows

KEPT: Final = timedelta(minutes=15)
"""No statement comes later than this: neither Lapse repeats it for so long, nor does a network hold
it back."""


class AttemptStore(Part):
    """The notes of attempts, which the statements with the parts `once` and `noted` leave."""

    @operation()
    def forget_attempts(self) -> Asking[None]:
        """Delete the notes that no repeat asks for any more.

        A repeat deletes what is left of them.
        """
        yield from rows("forget_attempts", kept=KEPT)
