"""The chart's colours are told apart in both schemes, by colour-blind eyes, too."""

import re
from itertools import combinations
from pathlib import Path

import pytest

import lapse.dashboard

CSS = (Path(lapse.dashboard.__file__).parent / "static" / "operators.css").read_text("utf-8")
SERIES = ("created", "used", "expired", "resurrected")
SCHEMES = ("light", "dark")

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", 2009: what who lacks a kind of cone sees of linear red, green and blue.
SIGHTS = {
    "every cone": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
# CIE 1976: XYZ of linear sRGB, and the white that Lab is measured against.
XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE = (0.95047, 1.0, 1.08883)

FAR = 20
"""The distance in Lab of two colours that nobody confuses; 2.3 is just noticeable."""

VISIBLE = 3.0
"""The contrast that WCAG 2.2 asks of a graphic (1.4.11)."""


def colour(name, scheme):
    """Return a colour of the style sheet as linear red, green and blue."""
    found = re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\)", CSS)
    text = found.group(1 + SCHEMES.index(scheme))[1:]
    text = text if len(text) == 6 else "".join(2 * digit for digit in text)
    parts = [int(text[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    return [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def lab(linear):
    def root(part):
        return part ** (1 / 3) if part > 216 / 24389 else (24389 / 27 * part + 16) / 116

    shown = [min(1.0, max(0.0, part)) for part in linear]
    x, y, z = (root(a / b) for a, b in zip(times(XYZ, shown), WHITE, strict=True))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def distance(one, other):
    return sum((a - b) ** 2 for a, b in zip(lab(one), lab(other), strict=True)) ** 0.5


def contrast(one, other):
    lighter, darker = sorted((times(XYZ, one)[1], times(XYZ, other)[1]), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sight", SIGHTS)
def test_no_two_series_look_alike(sight, scheme):
    """Seen to fail with the colours as they were: used and resurrected, to who lacks red cones."""
    seen = {name: times(SIGHTS[sight], colour(name, scheme)) for name in SERIES}
    apart = {(one, other): distance(seen[one], seen[other]) for one, other in combinations(seen, 2)}
    assert min(apart.values()) >= FAR, apart


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_series_stands_out_from_the_page(scheme):
    """Seen to fail with the light colours as they were: created and expired, with 2.6."""
    panel = colour("panel", scheme)
    shown = {name: contrast(colour(name, scheme), panel) for name in SERIES}
    assert min(shown.values()) >= VISIBLE, shown
