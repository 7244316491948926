"""What nemeses have found, in one run and in all runs on the same source."""

import json
from dataclasses import dataclass, field
from functools import reduce
from hashlib import blake2b
from operator import add
from pathlib import Path

from nemeses import BY_NAME, NEMESES, Nemesis

SOURCE = Path(__file__).parents[3] / "src" / "lapse"


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

    def line(self, **more):
        """Return it as a line that `of` reads, with whatever else the line is to say."""
        told = {name: value for name, value in vars(self).items() if name != "nemesis"}
        return json.dumps({**more, **told}) + "\n"

    @classmethod
    def of(cls, nemesis, told):
        """Return what a line says."""
        names = vars(cls(nemesis)).keys() - {"nemesis"}
        found = cls(nemesis, **{name: told[name] for name in names})
        found.violations = {int(seed): fault for seed, fault in found.violations.items()}
        return found


class Kept:
    """A file that keeps what every run on the same source has found, a line for each row of each.

    The first line of another source empties it. Without a file nothing is kept.
    """

    def __init__(self, path=None):
        self._path, self.source = path, source()
        lines = path.read_text("utf-8").splitlines() if path and path.exists() else []
        self._lines = [one for one in map(json.loads, lines) if one["source"] == self.source]

    def add(self, found, seed, on):
        """Keep what a row with this seed, played on this day, has found; once for each seed."""
        which = {"nemesis": found.nemesis.name, "source": self.source, "seed": seed}
        self._lines = [line for line in self._lines if not which.items() <= line.items()]
        self._lines.append(json.loads(found.line(on=on, **which)))
        if self._path:
            text = "".join(json.dumps(line) + "\n" for line in self._lines)
            self._path.write_text(text, "utf-8")

    def found(self, name):
        """Return what all rows of a nemesis have found together."""
        rows = [Found.of(BY_NAME[name], line) for line in self._lines if line["nemesis"] == name]
        return reduce(add, rows, Found(BY_NAME[name]))

    def reached(self, nemesis):
        """Return how many trials count for a nemesis' figure; those of a soak are of one piece."""
        together = [one for one in NEMESES if one.figure and one.figure == nemesis.figure]
        return sum(self.found(one.name).n for one in together or [nemesis])

    def all(self):
        """Return what each nemesis has found that has been played."""
        played = {line["nemesis"] for line in self._lines}
        return [self.found(one.name) for one in NEMESES if one.name in played]

    def days(self):
        """Return when rows were played, such as `2026-11-29 to 2026-12-01`."""
        days = sorted({line["on"] for line in self._lines})
        return " to ".join(dict.fromkeys(days[:1] + days[-1:]))


def source():
    """Return a digest of all that a server runs of Lapse."""
    digest = blake2b(digest_size=6)
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(SOURCE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
