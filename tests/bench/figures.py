"""The few statistics that the benchmark needs, in one place so that they can be tested."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypedDict


class Spread(TypedDict):
    """What was measured several times. JSON as it is."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, smallest and largest of some values."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(value: float, *base: float) -> float:
    """Return how many times the sum of `base` a value is."""
    return value / sum(base)


class Check(TypedDict):
    """A figure beside the one that was wanted: it is to be at most `wanted`."""

    what: str
    wanted: float
    reached: float
    unit: str


def met(check: Check) -> bool:
    """Tell whether a figure is as wanted, as exactly as it is shown (two decimals)."""
    return round(check["reached"], 2) <= check["wanted"]
