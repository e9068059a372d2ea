"""What the hot path counts: plain integers and lists, which `metrics` turns into Prometheus' families.

One `observe` takes 0.35 us, one histogram and one counter of `prometheus_client` 1.1 us.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

__all__ = ["CALL_BUCKETS_S", "RouteMetrics"]

CALL_BUCKETS_S = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""From a warm call of a static function to the longest a caller is likely to wait."""


class RouteMetrics:
    """One route's counters for one type of call; bind it once, then `observe` each call. Event loop only."""

    __slots__ = ("buckets", "codes", "cold", "errors", "sum_s")

    def __init__(self) -> None:
        self.codes: defaultdict[int, int] = defaultdict(int)
        self.errors: defaultdict[str, int] = defaultdict(int)
        self.buckets = [0] * (len(CALL_BUCKETS_S) + 1)
        self.sum_s = 0.0
        self.cold = 0

    def observe(self, status: int, exec_s: float, is_cold: bool) -> None:
        """Count a call that a container answered, with the time it had the request."""
        self.codes[status] += 1
        self.buckets[bisect_left(CALL_BUCKETS_S, exec_s)] += 1
        self.sum_s += exec_s
        if is_cold:
            self.cold += 1

    def failed(self, status: int, error_code: str) -> None:
        """Count a call that the platform answered with an error of its own (`Faas-Error: <error_code>`)."""
        self.codes[status] += 1
        self.errors[error_code] += 1

    def take(self) -> RouteMetrics:
        """What was counted since the last time, as counters of its own; here it begins at zero again."""
        taken = RouteMetrics()
        taken.add(self)
        self.__init__()  # type: ignore[misc]  # whoever counts here holds this very object
        return taken

    def add(self, other: RouteMetrics) -> None:
        """Count what others have counted."""
        for status, count in other.codes.items():
            self.codes[status] += count
        for error_code, count in other.errors.items():
            self.errors[error_code] += count
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.sum_s += other.sum_s
        self.cold += other.cold
