"""Reports: stored and read again, printed, compared."""

from __future__ import annotations

import pytest

from tests.bench.report import Better, Ratio, Report, Section, Table, fallen, markdown, shared_ratios


def report(*, higher: float = 0.8, lower: float = 2.0, section: str = "warm") -> Report:
    ratios = {
        "req/s": Ratio(value=higher, better=Better.HIGHER),
        "p50": Ratio(value=lower, better=Better.LOWER),
    }
    table = Table(columns=["", "req/s"], rows=[["nginx", 31_415.9], ["faas", 27.182], ["failed", 3], ["of", 0.8641]])
    return Report(
        facts={"kernel": "6.1"}, sections={section: Section(tables=[table], ratios=ratios, notes=["Fn was away."])}
    )


def test_a_report_is_read_as_it_was_stored() -> None:
    stored = report()
    text = Report.from_json(stored.to_json()).to_json()
    assert text == stored.to_json()
    assert Report.from_json(text).sections["warm"].ratios == stored.sections["warm"].ratios


def test_a_table_shows_the_digits_that_mean_something_and_notes_follow_it() -> None:
    assert markdown(report().sections["warm"]).splitlines() == [
        "|  | req/s |",
        "| --- | --- |",
        "| nginx | 31416 |",
        "| faas | 27.2 |",
        "| failed | 3 |",
        "| of | 0.86 |",
        "",
        "- Fn was away.",
    ]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (report(), []),
        (report(higher=9.0, lower=0.1), []),
        (report(higher=0.61, lower=2.6), []),
        (report(higher=0.59), [("warm", "req/s")]),
        (report(lower=2.7), [("warm", "p50")]),
        (report(higher=0.1, lower=9.0), [("warm", "req/s"), ("warm", "p50")]),
    ],
    ids=["equal", "better", "a little worse", "slower", "later", "both"],
)
def test_a_ratio_has_fallen_below_three_quarters_of_the_committed_one(
    measured: Report, expected: list[tuple[str, str]]
) -> None:
    assert list(fallen(report(), measured)) == expected


def test_what_has_fallen_is_said_with_both_numbers() -> None:
    assert fallen(report(), report(higher=0.5)) == {
        ("warm", "req/s"): "warm: req/s: 0.50, committed 0.80, higher is better"
    }


def test_only_what_both_reports_have_is_compared() -> None:
    other = report(higher=0.1, section="cold")
    assert shared_ratios(report(), other) == []
    assert fallen(report(), other) == {}
    assert len(shared_ratios(report(), report())) == 2
