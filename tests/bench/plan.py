"""What a run measures and how long: the options of the command line, typed, and what every section works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from faas.config import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import docker

__all__ = ["LONG", "NORMAL", "SHORT", "Bench", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured; the defaults are the normal form."""

    rounds: int = 5
    seconds: int = 4
    """Length of one load."""
    connections: tuple[int, ...] = (1, 8, 32, 128)
    colds: int = 30
    """Cold starts of each kind."""
    exact_calls: int = 10_000
    """Calls over standard input and output whose answers are compared byte for byte."""
    stream_mib: int = 1024
    with_variants: bool = True
    """Measure our node in other set-ups beside its main one, and Fn where it is given."""
    fn_server: Path | None = None
    """Fn's server, a program; it is left out without."""
    executors: tuple[str, ...] = get_args(Settings.model_fields["executor"].annotation)
    """Those that a node can be told to use."""


NORMAL = Plan()

SHORT = Plan(rounds=3, seconds=2, connections=(1, 32), colds=5, with_variants=False)
"""About a minute for the sections `warm` and `cold`; what `make bench-check` measures."""

LONG = Plan(rounds=9, exact_calls=100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every section gets."""

    plan: Plan
    folder: Path
    """For data, sockets and logs; it is removed afterwards. Its path is short: those of sockets have 107 characters."""
    images: Mapping[str, str]
    """The tests' functions: tag by name."""
    engine: docker.APIClient
