"""One picture: how much of every goal was reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.goals import Goal

_MET, _MISSED = "#2a7f62", "#c8553d"


def draw(path: Path, verdicts: Sequence[Goal]) -> None:
    """Draw a bar for every goal on a logarithmic axis; beyond the line at 1 it is met."""
    mpl.rcParams.update({"svg.hashsalt": "lapse", "svg.fonttype": "none"})
    figure = Figure(figsize=(10, 1 + 0.24 * len(verdicts)), layout="tight")
    axes = figure.subplots()
    shown = list(reversed(verdicts))
    axes.barh(
        [f"{goal.section}: {goal.what}" for goal in shown],
        [min(goal.reach, 100) for goal in shown],
        color=[_MET if goal.met else _MISSED for goal in shown],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("share of the goal that was reached (1: met)")
    axes.margins(y=0.01)
    axes.tick_params(axis="y", labelsize=7)
    figure.savefig(path, metadata={"Date": None})
