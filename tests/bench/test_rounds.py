"""The arithmetic of rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bench.rounds import Rounds, in_turn, nearest_rank

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.rounds import Figures

ROUNDS = Rounds(
    [
        {"a": {"speed": 10.0}, "b": {"speed": 10.0}},
        {"a": {"speed": 10.0}, "b": {"speed": 40.0}},
        {"a": {"speed": 90.0}, "b": {"speed": 180.0}},
    ]
)


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_the_medians() -> None:
    assert ROUNDS.median("b", "speed") / ROUNDS.median("a", "speed") == 4.0
    assert ROUNDS.ratio("b", "speed", to="a") == 2.0
    assert ROUNDS.ratio_range("b", "speed", to="a") == (1.0, 4.0)


def test_each_round_measures_every_way_and_begins_with_another() -> None:
    order = []

    def way(name: str) -> Callable[[], Figures]:
        def measure() -> Figures:
            order.append(name)
            return {"place": float(len(order))}

        return measure

    rounds = in_turn({name: way(name) for name in "abc"}, 4)
    assert "".join(order) == "abcbcacababc"
    assert rounds.all("b", "place") == [2.0, 4.0, 9.0, 11.0]


@pytest.mark.parametrize(("percent", "expected"), [(50, 10), (95, 19), (96, 20), (100, 20), (1, 1), (0, 1)])
def test_a_percentile_is_one_of_the_values(percent: int, expected: float) -> None:
    assert nearest_rank(reversed(range(1, 21)), percent) == expected
