"""Loads compared: a line of a table for each server, and the ratios that a later run is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.report import Better, Ratio

if TYPE_CHECKING:
    from tests.bench.report import Cell
    from tests.bench.rounds import Rounds

__all__ = ["columns", "held", "row"]

_HELD = {
    "req/s": ("requests_per_s", Better.HIGHER),
    "p50": ("p50_us", Better.LOWER),
    "CPU": ("cpu_us", Better.LOWER),
}
"""Not p99, which is the machine's noise as much as the server's."""


def columns(base: str) -> list[str]:
    """The heads of what `row` gives."""
    of = f"of {base}"
    return ["", "req/s", of, "in the rounds", "p50 us", of, "p99 us", "CPU us", of, "failed"]


def row(title: str, rounds: Rounds, name: str, base: str) -> list[Cell]:
    """Medians, medians of the rounds' ratios, and for req/s the least and the greatest ratio of a round."""
    least, greatest = rounds.ratio_range(name, "requests_per_s", to=base)
    return [
        title,
        rounds.median(name, "requests_per_s"),
        rounds.ratio(name, "requests_per_s", to=base),
        f"{least:.2f} to {greatest:.2f}",
        rounds.median(name, "p50_us"),
        rounds.ratio(name, "p50_us", to=base),
        rounds.median(name, "p99_us"),
        rounds.median(name, "cpu_us"),
        rounds.ratio(name, "cpu_us", to=base),
        round(sum(rounds.all(name, "failed"))),
    ]


def held(title: str, rounds: Rounds, name: str, base: str) -> dict[str, Ratio]:
    """The ratios by their names."""
    return {
        f"{title}, {name} of {base}: {label}": Ratio(value=rounds.ratio(name, key, to=base), better=better)
        for label, (key, better) in _HELD.items()
    }
