"""Identifiers: time-ordered UUIDs."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from faas.clock import utc_now
from faas.ids import created_at_of, is_call_id, new_id


def test_a_hundred_thousand_ids_are_unique_and_sort_in_the_order_they_were_made() -> None:
    ids = [new_id() for _ in range(100_000)]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)


def test_threads_make_different_ids() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: [new_id() for _ in range(20_000)], range(4)))
    assert len({one for ids in made for one in ids}) == 80_000


def test_ids_of_later_milliseconds_sort_after_earlier_ones() -> None:
    earlier = new_id()
    time.sleep(0.002)
    assert earlier < new_id()


def test_an_id_has_the_layout_of_rfc_9562() -> None:
    for _ in range(1000):
        parsed = uuid.UUID(new_id())
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


def test_an_id_says_when_it_was_made() -> None:
    before = utc_now()
    made_at = created_at_of(new_id())
    assert before - timedelta(milliseconds=2) <= made_at <= utc_now()
    assert created_at_of("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC), (
        "the RFC's own example"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "017f22e279b07cc398c4dc0c0c07398f",
        "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
        "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f\n",
        "../../etc/passwd",
    ],
)
def test_what_is_no_canonical_version_7_is_no_call_id(text: str) -> None:
    assert not is_call_id(text)
