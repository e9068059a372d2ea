"""`docs/compatibility.md` names a test for each row: they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
ROWS = 70

PLANNED = {"tests/e2e/test_compat_run.py", "tests/e2e/test_serve.py", "tests/test_config.py"}
"""Files that may be missing as a whole; as soon as one is there, all that the page names must be in it."""


def test_every_row_is_there_once_and_in_order() -> None:
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert rows == list(range(1, ROWS + 1))


def test_every_row_has_a_verdict_and_those_that_apply_a_test() -> None:
    for line in re.findall(r"^\| \d+ \|.*$", PAGE, re.MULTILINE):
        *_, verdict, tests, _ = (cell.strip() for cell in line.split(" |"))
        assert verdict in ("same", "mended", "decided", "-"), line
        assert verdict == "-" or "tests/" in tests, line


def test_every_test_that_is_named_exists() -> None:
    missing = []
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE):
        path = ROOT / file
        if file in PLANNED and not path.exists():
            continue
        if not path.is_file() or (name and not re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE)):
            missing.append(f"{file}::{name}")
    assert missing == []
