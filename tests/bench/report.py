"""What was measured: sections of tables and ratios, as they are printed, stored as JSON, and compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Better",
    "Cell",
    "Ratio",
    "Report",
    "Section",
    "Table",
    "fallen",
    "markdown",
    "shared_ratios",
    "table_markdown",
]

Cell = str | int | float

TOLERATED_SHARE = 0.75
"""A ratio has fallen when it is worse than this share of the committed one; one hour differs from another by less."""


class Better(StrEnum):
    """Which way a ratio is good."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Of two measurements in one run: the one number that can be compared between machines."""

    value: float
    better: Better

    def is_worse_than(self, committed: Ratio) -> bool:
        """Whether it has fallen beyond what is tolerated."""
        if self.better is Better.HIGHER:
            return self.value < committed.value * TOLERATED_SHARE
        return self.value > committed.value / TOLERATED_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells; a float is written with as many digits as mean something."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One question and its answer."""

    tables: Sequence[Table]
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What a reader of the numbers must know, such as what was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """Of the machine and of the run."""
    sections: Mapping[str, Section] = field(default_factory=dict)

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps(_rounded(asdict(self)), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that was stored."""
        stored = json.loads(text)
        return cls(
            facts=stored["facts"], sections={name: _section(values) for name, values in stored["sections"].items()}
        )


def shared_ratios(committed: Report, measured: Report) -> list[tuple[str, str]]:
    """Section and name of each ratio that both have."""
    return [
        (name, ratio)
        for name, section in measured.sections.items()
        if name in committed.sections
        for ratio in section.ratios
        if ratio in committed.sections[name].ratios
    ]


def fallen(committed: Report, measured: Report) -> dict[tuple[str, str], str]:
    """By section and name, a sentence for each shared ratio that is worse than tolerated."""
    found = {}
    for section, name in shared_ratios(committed, measured):
        before, now = committed.sections[section].ratios[name], measured.sections[section].ratios[name]
        if now.is_worse_than(before):
            sentence = f"{section}: {name}: {now.value:.2f}, committed {before.value:.2f}, {before.better} is better"
            found[section, name] = sentence
    return found


def markdown(section: Section) -> str:
    """Its tables and notes."""
    parts = [table_markdown(table) for table in section.tables]
    if section.notes:
        parts.append("\n".join(f"- {note}" for note in section.notes))
    return "\n\n".join(parts)


def table_markdown(table: Table) -> str:
    """A table as Markdown has them."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines)


def _rounded(value: Any) -> Any:
    """With four digits: what follows is noise, and a committed file changes enough without it."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _section(values: dict[str, Any]) -> Section:
    return Section(
        tables=[Table(**table) for table in values["tables"]],
        ratios={
            name: Ratio(value=ratio["value"], better=Better(ratio["better"]))
            for name, ratio in values["ratios"].items()
        },
        notes=values["notes"],
    )


def _text(cell: Cell) -> str:
    if not isinstance(cell, float):
        return str(cell)
    digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2
    return f"{cell:.{digits}f}"
