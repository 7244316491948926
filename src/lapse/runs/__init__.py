"""Runs that outlive their connection, and streams of them that can be resumed."""

from lapse.runs.places import Place
from lapse.runs.registry import Runs
from lapse.runs.running import Run

__all__ = ["Place", "Run", "Runs"]
