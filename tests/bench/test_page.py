"""The page of performance: its tables are the report's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.__main__ import SECTIONS
from tests.bench.page import PLACE, fill
from tests.bench.report import Report, Section, Table

DOCS = Path(__file__).parents[2] / "docs"
PAGE = """\
# Title

<!-- measured: warm -->
old
<!-- end -->

Between.

<!-- measured: cold -->
<!-- end -->
"""


def report(*names: str) -> Report:
    table = Table(columns=["a", "b"], rows=[["x", 1]])
    return Report(facts={"kernel": "6.1"}, sections={name: Section(tables=[table]) for name in names})


def test_the_page_has_the_tables_of_the_committed_report() -> None:
    page = (DOCS / "performance.md").read_text()
    report = Report.from_json((DOCS / "performance.json").read_text())
    hint = "run: python -m tests.bench.page docs/performance.json docs/performance.md"
    assert fill(page, report) == page, hint


def test_the_page_has_a_place_for_every_section() -> None:
    places = {match["name"] for match in PLACE.finditer((DOCS / "performance.md").read_text())}
    assert places == {"facts", *SECTIONS}


def test_tables_replace_what_stood_in_their_place_and_nothing_else() -> None:
    filled = fill(PAGE, report("warm"))
    assert filled == (
        "# Title\n\n<!-- measured: warm -->\n\n| a | b |\n| --- | --- |\n| x | 1 |\n\n<!-- end -->\n\nBetween.\n\n"
        "<!-- measured: cold -->\n\n*Not measured yet.*\n\n<!-- end -->\n"
    )
    assert fill(filled, report("warm")) == filled


def test_a_section_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place for: bodies"):
        fill(PAGE, report("bodies"))
