"""Whose code a sample was in."""

from __future__ import annotations

import pytest

from tests.bench.profiling import group_of, shares

LOOP = "<module> (faas/__main__.py:6);serve (faas/server.py:44);run (uvloop/__init__.py:92)"


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ("Exchange.start (faas/api/exchange.py:266)", "faas.api"),
        ("Slot.response_ended (faas/runner/slot.py:157)", "faas.runner"),
        ("HttpStreamFormat.encode (faas/runner/formats/http_stream.py:121)", "faas.runner"),
        ("new_id (faas/ids.py:24)", "faas, the rest"),
        ("new_id (faas/ids.py:24);_PyEval_EvalFrameDefault (ceval.c:4)", "faas, the rest"),
        ("FaasProtocol.data_received (faas/api/dataplane.py:138);llhttp__internal_execute (llhttp.c:9)", "httptools"),
        ("HttpToolsProtocol.data_received (uvicorn/protocols/http/httptools_impl.py:165)", "uvicorn"),
        ("Loop__run (loop.c:20313);uv_run (core.c:452)", "uvloop"),
        ("Loop__run (loop.c:20313);uv__try_write (stream.c:700);write (libc.so.6)", "system call write"),
        ("formatdate (email/utils.py:161)", "other libraries"),
        ("write (<string>:1)", "uvloop"),
    ],
)
def test_a_sample_belongs_to_its_innermost_frame_that_is_somebodys(frames: str, expected: str) -> None:
    assert group_of(f"{LOOP};{frames}".split(";")) == expected


def test_shares_are_those_of_the_event_loops_thread() -> None:
    stacks = [
        f"{LOOP};Exchange.start (faas/api/exchange.py:266) 3",
        f"{LOOP};write (libc.so.6) 5",
        "clone (libc.so.6);commit (sqlalchemy/engine/base.py:1) 100",
    ]
    assert shares(stacks) == [("system call write", 0.625), ("faas.api", 0.375)]
