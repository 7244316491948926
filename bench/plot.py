"""One picture: how much of every goal was reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.goals import STORES, Goal

_MET, _MISSED = "#2a7f62", "#c8553d"
_PALE = 0.55


def draw(path: Path, verdicts: Sequence[Goal]) -> None:
    """Draw a bar for every goal on a logarithmic axis; beyond the line at 1 it is met.

    The two stores of a goal stand below each other, the second one pale.
    """
    mpl.rcParams.update({"svg.hashsalt": "lapse", "svg.fonttype": "none"})
    rows = list(dict.fromkeys(goal.what for goal in verdicts))
    figure = Figure(figsize=(10, 1 + 0.36 * len(rows)), layout="tight")
    axes = figure.subplots()
    for number, store in enumerate(STORES):
        goals = [goal for goal in verdicts if goal.store == store]
        axes.barh(
            [rows.index(goal.what) + 0.4 * number - 0.2 for goal in goals],
            [min(goal.reach, 100) for goal in goals],
            height=0.36,
            color=[_MET if goal.met else _MISSED for goal in goals],
            alpha=_PALE if number else 1.0,
        )
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("share of the goal that was reached (1: met)")
    axes.margins(y=0.01)
    axes.tick_params(axis="y", labelsize=8)
    shades = zip(STORES.values(), (1.0, _PALE), strict=True)
    axes.legend(handles=[Patch(color=_MET, alpha=shade, label=name) for name, shade in shades])
    figure.savefig(path, metadata={"Date": None})
