"""What a fork of the process means to objects with threads, connections or locks."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from weakref import WeakSet

_log = logging.getLogger(__name__)


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


class _Forking(threading.local):
    """The objects that were told of the fork that this thread is about to make.

    Other threads may make more of them, or fork, before it is done.
    """

    def __init__(self) -> None:
        self.told: list[Forked] = []


_forking = _Forking()


def _tell_before() -> None:
    _forking.told = list(_told)
    for one in _forking.told:
        _tell(one.before_fork)


def _tell_parent() -> None:
    told, _forking.told = _forking.told, []
    for one in told:
        _tell(one.after_fork)


def _tell_child() -> None:
    _forking.told = []
    for one in list(_told):
        _tell(one.after_fork_in_child)


def _tell(call: Callable[[], None]) -> None:
    """Call one object's method; its fault must not keep the others from being told."""
    try:
        call()
    except Exception:  # noqa: BLE001 - Python would ignore it, and the fork goes on
        _log.exception("an object cannot follow a fork of the process")


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_tell_before, after_in_parent=_tell_parent, after_in_child=_tell_child
    )
