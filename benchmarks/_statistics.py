"""Ratios of rounds: a drift of the machine meets both sides of a round alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Literal

Sense = Literal["more", "less", "beyond"]  # is better; or: the difference is what counts


@dataclass(frozen=True)
class Spread:
    """The median, and the quarters: between `low` and `high` lie half of the rounds."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def compared(ours: Sequence[float], peers: Sequence[float], sense: Sense) -> Spread:
    """By which factor ours is the better in the same round; or how far beyond it lies."""
    rounds = zip(ours, peers, strict=True)
    if sense == "beyond":
        return spread([a - b for a, b in rounds])
    if sense == "less":
        return spread([b / a for a, b in rounds])
    return spread([a / b for a, b in rounds])
