"""Fills the tables of a page from a report: `python -m tests.bench.page docs/performance.json docs/performance.md`.

In the page, `<!-- measured: NAME -->` and `<!-- end -->` stand around the tables of the section NAME; `facts` are
those of the machine. The text around them is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.bench.report import Report, Table, markdown, table_markdown

__all__ = ["fill"]

PLACE = re.compile(r"(<!-- measured: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FACTS = "facts"
NOTHING = "*Not measured yet.*"


def fill(page: str, report: Report) -> str:
    """The page with the report's tables in their places; raises ValueError when a section has none."""
    places = {match["name"] for match in PLACE.finditer(page)}
    if homeless := sorted(set(report.sections) - places):
        raise ValueError(f"the page has no place for: {', '.join(homeless)}")
    return PLACE.sub(lambda match: f"{match[1]}\n{_content(match['name'], report)}\n\n{match[3]}", page)


def _content(name: str, report: Report) -> str:
    if name == FACTS:
        return table_markdown(Table(columns=["", ""], rows=list(report.facts.items()))) if report.facts else NOTHING
    return markdown(report.sections[name]) if name in report.sections else NOTHING


def main(arguments: list[str]) -> int:
    """Rewrite the page in place."""
    source, page = map(Path, arguments)
    page.write_text(fill(page.read_text(), Report.from_json(source.read_text())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
