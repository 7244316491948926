"""What a fork of the process means to objects with threads, connections or locks."""

from __future__ import annotations

import os
from weakref import WeakSet


class Forked:
    """An object that is told of forks; call `survive_forks` once it is made.

    A child has none of its parent's threads, and its locks stay as they were at that moment. What
    it inherits of files and sockets is still the parent's.
    """

    def survive_forks(self) -> None:
        """Be told of every fork from now on, for as long as the object lives."""
        _told.add(self)

    def before_fork(self) -> None:
        """Let go of what may not be open while the process forks; other threads go on."""

    def after_fork(self) -> None:
        """Go on in the parent."""

    def after_fork_in_child(self) -> None:
        """Begin anew in the child, and touch nothing that is the parent's."""


_told: WeakSet[Forked] = WeakSet()


def _tell_before() -> None:
    for one in list(_told):
        one.before_fork()


def _tell_parent() -> None:
    for one in list(_told):
        one.after_fork()


def _tell_child() -> None:
    for one in list(_told):
        one.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_tell_before, after_in_parent=_tell_parent, after_in_child=_tell_child
    )
