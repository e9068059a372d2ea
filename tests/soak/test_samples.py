"""Which growth is a leak."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.samples import MAX_FDS_MORE, MAX_RSS_GROWTH_MIB, MAX_SOCKETS_MORE, MAX_THREADS_MORE, Sample

BEFORE = Sample(rss_mib=100.0, fds=50, sockets=30, threads=14, tasks=11, containers=5)


@pytest.mark.parametrize("field", ["tasks", "containers"])
def test_one_more_of_what_is_counted_is_a_leak(field: str) -> None:
    after = replace(BEFORE, **{field: getattr(BEFORE, field) + 1})
    assert after.leaks_since(BEFORE) == [f"{field}: {getattr(BEFORE, field)} -> {getattr(after, field)}"]


def test_what_is_kept_for_later_comes_and_goes() -> None:
    within = replace(
        BEFORE,
        rss_mib=100 + MAX_RSS_GROWTH_MIB,
        threads=14 + MAX_THREADS_MORE,
        fds=50 + MAX_FDS_MORE,
        sockets=30 + MAX_SOCKETS_MORE,
    )
    assert within.leaks_since(BEFORE) == []
    beyond = replace(
        within,
        rss_mib=within.rss_mib + 0.1,
        threads=within.threads + 1,
        fds=within.fds + 1,
        sockets=within.sockets + 1,
    )
    assert {leak.partition(":")[0] for leak in beyond.leaks_since(BEFORE)} == {"rss_mib", "threads", "fds", "sockets"}


def test_less_than_before_is_no_leak() -> None:
    assert replace(BEFORE, containers=0, rss_mib=90.0).leaks_since(BEFORE) == []
