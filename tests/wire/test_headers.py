"""What every hop needs to know of headers."""

from __future__ import annotations

import pytest

from faas.wire.headers import canonical_name, end_to_end


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        (b"x-call-id", b"X-Call-Id"),
        (b"CONTENT-type", b"Content-Type"),
        (b"etag", b"Etag"),
        (b"a--b-", b"A--B-"),
        (b"x_y", b"X_y"),
        (b"", b""),
    ],
)
def test_names_are_spelled_as_go_does(name: bytes, spelled: bytes) -> None:
    assert canonical_name(name) == spelled


def test_connection_level_headers_end_here_and_so_do_those_that_connection_names() -> None:
    headers = [
        (b"Host", b"here"),
        (b"Connection", b"close, X-Hop"),
        (b"connection", b" x-other "),
        (b"X-HOP", b"1"),
        (b"X-Other", b"2"),
        (b"Keep-Alive", b"timeout=5"),
        (b"TE", b"trailers"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
    ]
    assert end_to_end(headers) == [(b"host", b"here"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
