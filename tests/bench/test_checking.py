"""The check: it fails when a ratio has fallen twice, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.checking import check
from tests.bench.report import Better, Ratio, Report, Section

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest


def report(**sections: dict[str, float]) -> Report:
    return Report(
        sections={
            name: Section(
                tables=[],
                ratios={key: Ratio(value=value, better=Better.HIGHER) for key, value in ratios.items()},
            )
            for name, ratios in sections.items()
        }
    )


COMMITTED = report(warm={"fast": 1.0, "slow": 0.1}, cold={"start": 1.0})


class Again:
    """Measures again with the same answer, and notes what it was asked for."""

    def __init__(self, answer: Report) -> None:
        self.answer = answer
        self.asked: list[list[str]] = []

    def __call__(self, sections: Iterable[str]) -> Report:
        self.asked.append(list(sections))
        return self.answer


def test_nothing_is_measured_again_when_nothing_has_fallen() -> None:
    again = Again(report())
    assert check(COMMITTED, report(warm={"fast": 0.9}, cold={"start": 1.2}), again)
    assert again.asked == []


def test_what_has_fallen_once_only_passes() -> None:
    again = Again(report(warm={"fast": 1.0, "slow": 0.1}))
    assert check(COMMITTED, report(warm={"fast": 0.5, "slow": 0.1}, cold={"start": 1.0}), again)
    assert again.asked == [["warm"]]


def test_another_ratio_that_falls_the_second_time_passes() -> None:
    again = Again(report(warm={"fast": 1.0, "slow": 0.01}))
    assert check(COMMITTED, report(warm={"fast": 0.5, "slow": 0.1}), again)


def test_what_falls_each_time_fails_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    again = Again(report(warm={"fast": 0.4, "slow": 0.1}))
    assert not check(COMMITTED, report(warm={"fast": 0.5, "slow": 0.1}), again)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "Fallen 3 times:",
        "warm: fast: 0.40, committed 1.00, higher is better",
    ]


def test_nothing_to_compare_fails() -> None:
    assert not check(report(), report(warm={"fast": 1.0}), Again(report()))
