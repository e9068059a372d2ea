"""One soak: phase after phase, each with a look at the node after its first tenth and at its end."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from tests.soak.phases import PHASES, WARM
from tests.soak.samples import Sample, take_quiet, take_settled
from tests.support.waiting import wait_until_blocking

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.soak.phases import Phase
    from tests.support.node import App

__all__ = ["soak"]

WARM_UP_ONE_IN = 10
"""Of a phase's calls; then the node is looked at for the first time."""

SLICES = 9
"""Of the rest of the warm calls, each a line of the table."""

READY_TIMEOUT_S = 60.0


def soak(app: App, *, calls: int, report: Callable[[str], None]) -> list[str]:
    """Make so many warm calls and their share of others; returns what leaked, with the phase's name."""
    columns = [name.name for name in fields(Sample)]
    report(f"| {'phase':42} | {'calls':>9} | calls/s | {' | '.join(columns)} |")
    report(f"|{'-' * 44}|{'-' * 11}|{'-' * 9}|{'|'.join('-' * (len(name) + 2) for name in columns)}|")

    def line(name: str, done: int, rate: float, sample: Sample) -> None:
        values = " | ".join(f"{value:{len(name)}.4g}" for name, value in asdict(sample).items())
        report(f"| {name:42} | {done:9} | {rate:7.0f} | {values} |")

    leaks = _run(app, WARM, calls, line, slices=SLICES)
    for phase in PHASES:
        leaks += _run(app, phase, calls // phase.one_in, line)
    return leaks


def _run(
    app: App, phase: Phase, calls: int, line: Callable[[str, int, float, Sample], None], *, slices: int = 1
) -> list[str]:
    app.deploy(phase.path, phase.image, **phase.route)
    done = max(calls // WARM_UP_ONE_IN, phase.warm_up)
    rate = phase.run(app, calls=done)
    _wait_for_containers(app, phase)
    before = after = take_quiet(app.node)
    line(phase.name, done, rate, before)
    part = max(calls - done, phase.warm_up) // slices
    for _ in range(slices):
        rate = phase.run(app, calls=part)
        done += part
        _wait_for_containers(app, phase)
        after = take_settled(app.node, before)
        line("", done, rate, after)
    app.remove(phase.path)
    return [f"{phase.name}: {leak}" for leak in after.leaks_since(before)]


def _wait_for_containers(app: App, phase: Phase) -> None:
    """Those that ended are replaced."""
    count = phase.route.get("min_warm", 0)
    wait_until_blocking(lambda: len(app.running(phase.path)) == count, timeout_s=READY_TIMEOUT_S)
