"""What nemeses have found, in one run and in all runs on the same source."""

import json
from dataclasses import dataclass, field
from functools import reduce
from operator import add

from lines import Lines
from nemeses import BY_NAME, NEMESES, Nemesis


@dataclass
class Found:
    """What a nemesis has found."""

    nemesis: Nemesis
    n: int = 0
    rounds: int = 0
    seconds: float = 0.0
    violations: dict[int, str] = field(default_factory=dict)
    caught: dict[str, int | None] = field(default_factory=dict)
    """How many rounds it took to find each broken build; None: it was not found."""

    measured: dict = field(default_factory=dict)
    """What a soak has measured."""

    def __add__(self, later):
        """Return what both have found together; of two soaks the longer one says what grows."""
        longer = max(self, later, key=lambda one: one.n)
        return Found(
            self.nemesis,
            longer.n if self.nemesis.lasts else self.n + later.n,
            self.rounds + later.rounds,
            self.seconds + later.seconds,
            self.violations | later.violations,
            self.caught | later.caught,
            longer.measured,
        )

    def told(self):
        """Return what `of` reads, as JSON has it; it does not name the nemesis."""
        told = {name: value for name, value in vars(self).items() if name != "nemesis"}
        return json.loads(json.dumps(told))

    @classmethod
    def of(cls, nemesis, told):
        """Return what was told of a nemesis, maybe among other things."""
        names = vars(cls(nemesis)).keys() - {"nemesis"}
        found = cls(nemesis, **{name: told[name] for name in names})
        found.violations = {int(seed): fault for seed, fault in found.violations.items()}
        return found


class Kept(Lines):
    """What every run on the same source has found: a line for each row of each."""

    def add(self, found, seed, on):
        """Keep what a row with this seed, played on this day, has found; once for each seed."""
        which = {"nemesis": found.nemesis.name, "seed": seed}
        self.keep(which, {"on": on, **found.told()})

    def found(self, name):
        """Return what all rows of a nemesis have found together."""
        rows = [Found.of(BY_NAME[name], line) for line in self.lines if line["nemesis"] == name]
        return reduce(add, rows, Found(BY_NAME[name]))

    def reached(self, nemesis):
        """Return how many trials count for a nemesis' figure; those of a soak are of one piece."""
        together = [one for one in NEMESES if one.figure and one.figure == nemesis.figure]
        return sum(self.found(one.name).n for one in together or [nemesis])

    def all(self):
        """Return what each nemesis has found that has been played."""
        played = {line["nemesis"] for line in self.lines}
        return [self.found(one.name) for one in NEMESES if one.name in played]

    def days(self):
        """Return when rows were played, such as `2026-11-29 to 2026-12-01`."""
        days = sorted({line["on"] for line in self.lines})
        return " to ".join(dict.fromkeys(days[:1] + days[-1:]))
