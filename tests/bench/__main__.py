"""`make bench` and `make bench-check`: measure, print tables, write JSON, compare with what is committed.

Everything is measured in turn in one run, several rounds, because machines are shared and noisy: the ratios mean
something, the numbers belong to the machine and the hour. What is measured and why: docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import docker

from tests.bench.bodies import bodies
from tests.bench.checking import check
from tests.bench.cold import cold
from tests.bench.machine import facts
from tests.bench.memory import memory
from tests.bench.plan import LONG, NORMAL, SHORT, Bench
from tests.bench.profiling import profile
from tests.bench.queued import queued
from tests.bench.report import Report, markdown
from tests.bench.stdio import stdio
from tests.bench.streams import streams
from tests.bench.variety import variety
from tests.bench.warm import warm
from tests.functions.build import ensure_images
from tests.support.docker import DOCKER_HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.bench.plan import Plan
    from tests.bench.report import Section

SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "warm": warm,
    "variety": variety,
    "bodies": bodies,
    "streams": streams,
    "stdio": stdio,
    "queued": queued,
    "cold": cold,
    "memory": memory,
    "profile": profile,
}
SHORT_SECTIONS = ("warm", "cold")


def main() -> int:
    """0; with `--check` 1 when a ratio has fallen twice."""
    options = _options()
    plan = _plan(options)
    names = options.only or (SHORT_SECTIONS if options.short else tuple(SECTIONS))
    committed = Report.from_json(options.check.read_text()) if options.check else None
    report = _measured(plan, names)
    if options.json:
        options.json.write_text(report.to_json())
    return 0 if committed is None or check(committed, report, partial(_measured, plan)) else 1


def _measured(plan: Plan, names: Iterable[str]) -> Report:
    """Measure the sections, each printed as soon as it is there."""
    images = ensure_images()
    engine = docker.APIClient(base_url=DOCKER_HOST, version="auto")
    report = Report(facts=facts(plan, engine))
    for name in names:
        with tempfile.TemporaryDirectory(prefix="faas-bench-") as folder:
            section = SECTIONS[name](Bench(plan=plan, folder=Path(folder), images=images, engine=engine))
        print(f"## {name}\n\n{markdown(section)}\n", flush=True)
        report = replace(report, sections={**report.sections, name: section})
    engine.close()
    return report


def _plan(options: argparse.Namespace) -> Plan:
    """The form that was asked for, with what was said besides."""
    form = SHORT if options.short else LONG if options.long else NORMAL
    names = ("rounds", "seconds", "connections", "colds", "exact_calls", "stream_mib", "executors")
    said = {name: value for name in names if (value := getattr(options, name)) is not None}
    fn_server = os.environ.get("FN_SERVER")
    return replace(form, fn_server=Path(fn_server) if fn_server else None, **said)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--short", action="store_true", help=f"about a minute: {', '.join(SHORT_SECTIONS)}")
    form.add_argument("--long", action="store_true", help="more rounds, ten times as many answers compared")
    parser.add_argument("--only", type=_section_names, metavar="NAME,NAME", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, help=f"default {NORMAL.rounds}")
    parser.add_argument("--seconds", type=int, help=f"length of one load, default {NORMAL.seconds}")
    parser.add_argument("--connections", type=_numbers, metavar="N,N", help=f"default {NORMAL.connections}")
    parser.add_argument("--colds", type=int, help=f"cold starts of each kind, default {NORMAL.colds}")
    parser.add_argument("--exact-calls", type=int, help=f"answers compared, default {NORMAL.exact_calls}")
    parser.add_argument("--stream-mib", type=int, help=f"length of a stream, default {NORMAL.stream_mib}")
    parser.add_argument("--executors", type=_words, metavar="NAME,NAME", help=f"default {','.join(NORMAL.executors)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--check", type=Path, metavar="FILE", help="fail when a ratio of that report has fallen")
    return parser.parse_args()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in _words(text))


def _section_names(text: str) -> tuple[str, ...]:
    names = _words(text)
    if unknown := set(names) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"no such section: {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
