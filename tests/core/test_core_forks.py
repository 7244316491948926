"""What the process tells its objects when it forks; `os.fork` itself is in tests/system/loops."""

from lapse.core import forks
from lapse.core.forks import Forked


class Told(Forked):
    def __init__(self, fails_in=(), while_before=lambda: None):
        self.heard = []
        self._fails_in, self._while_before = fails_in, while_before
        self.survive_forks()

    def _hear(self, what):
        self.heard.append(what)
        if what in self._fails_in:
            raise RuntimeError(what)

    def before_fork(self):
        self._while_before()
        self._hear("before")

    def after_fork(self):
        self._hear("parent")

    def after_fork_in_child(self):
        self._hear("child")


def test_a_fault_of_one_object_keeps_no_other_from_being_told(caplog):
    """Seen to fail without the catch: the first object that fails is the last that is told."""
    objects = [Told(), Told({"before"}), Told({"parent"}), Told({"child"}), Told()]
    forks._tell_before()
    forks._tell_parent()
    assert [one.heard for one in objects] == [["before", "parent"]] * 5
    forks._tell_before()
    forks._tell_child()
    assert [one.heard[2:] for one in objects] == [["before", "child"]] * 5
    assert caplog.text.count("cannot follow a fork") == 4


def test_an_object_that_is_made_during_a_fork_is_told_of_no_end_without_a_beginning():
    """Seen to fail with the objects asked for anew: a lock was released that nobody held."""
    made = []
    first = Told(while_before=lambda: made.append(Told()))
    forks._tell_before()
    forks._tell_parent()
    assert first.heard == ["before", "parent"]
    assert made[0].heard == []
