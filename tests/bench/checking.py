"""The check: has a ratio fallen since it was committed?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.bench.report import fallen, shared_ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.bench.report import Report

__all__ = ["check"]

REPEATS = 2
"""How often what has fallen is measured again: a machine that others use has bad minutes, a defect has no others."""


def check(committed: Report, measured: Report, measure: Callable[[Iterable[str]], Report]) -> bool:
    """Whether no ratio has fallen; says which have.

    Sections with fallen ratios are measured again; what has fallen must do so each time. A check that finds nothing to
    compare fails, since it would pass for ever.
    """
    compared = len(shared_ratios(committed, measured))
    if not compared:
        print("Nothing to compare: the committed report has none of the ratios that were measured.", file=sys.stderr)
        return False
    found = fallen(committed, measured)
    for _ in range(REPEATS):
        if not found:
            break
        print("Fallen, measured once more:", *found.values(), sep="\n", file=sys.stderr)
        again = fallen(committed, measure(dict.fromkeys(section for section, _ in found)))
        found = {name: sentence for name, sentence in again.items() if name in found}
    if found:
        print(f"Fallen {REPEATS + 1} times:", *found.values(), sep="\n", file=sys.stderr)
        return False
    print(f"None of {compared} ratios has fallen.")
    return True
