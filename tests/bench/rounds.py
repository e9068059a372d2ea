"""Rounds: several ways of doing the same, measured in turn, and what can be said of them afterwards.

Machines are shared and noisy, and the noise lasts longer than one measurement. So a ratio is taken within each
round, of two measurements seconds apart, and the median of these ratios counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Figures", "Rounds", "in_turn", "nearest_rank"]

Figures = Mapping[str, float]
"""One measurement: its numbers by name."""


class Rounds:
    """For each round the figures of each way, by its name."""

    def __init__(self, rounds: Iterable[Mapping[str, Figures]]) -> None:
        self._rounds = list(rounds)

    def all(self, way: str, key: str) -> list[float]:
        """A figure, round after round."""
        return [one[way][key] for one in self._rounds]

    def median(self, way: str, key: str) -> float:
        """The middle one."""
        return statistics.median(self.all(way, key))

    def ratio(self, way: str, key: str, *, to: str) -> float:
        """The median of the rounds' ratios."""
        pairs = zip(self.all(way, key), self.all(to, key), strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def ratio_range(self, way: str, key: str, *, to: str) -> tuple[float, float]:
        """The least and the greatest of the rounds' ratios: how far the median can be trusted."""
        pairs = zip(self.all(way, key), self.all(to, key), strict=True)
        ratios = [mine / theirs for mine, theirs in pairs]
        return min(ratios), max(ratios)


def in_turn(ways: Mapping[str, Callable[[], Figures]], rounds: int) -> Rounds:
    """Measure all ways so many times; each round begins with another one, so that none always follows the same."""
    measured = []
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        order = names[first:] + names[:first]
        measured.append({name: ways[name]() for name in order})
    return Rounds(measured)


def nearest_rank(values: Iterable[float], percent: int) -> float:
    """The value that so many per cent of the values don't exceed; always one of them."""
    ordered = sorted(values)
    return ordered[max(-(-len(ordered) * percent // 100), 1) - 1]
