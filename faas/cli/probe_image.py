"""The smallest image there can be: one static program that ends at once. No registry is needed to have it."""

from __future__ import annotations

import io
import struct
import tarfile
from typing import TYPE_CHECKING

import httpx

from faas.errors import EngineError, EngineUnavailableError
from faas.runner.executors.docker_engine import socket_path_of

if TYPE_CHECKING:
    from faas.config import Settings

__all__ = ["REFERENCE", "import_probe_image", "program"]

REFERENCE = "faas/doctor:local"
PROGRAM = "nothing"

LOAD_ADDRESS = 0x400000
ELF_HEADER_BYTES = 64
PROGRAM_HEADER_BYTES = 56
PAGE_BYTES = 0x1000

_MACHINES = {
    # xor edi, edi; mov eax, 60 (exit); syscall
    "amd64": (62, bytes.fromhex("31ff b83c000000 0f05")),
    # mov x0, 0; mov x8, 93 (exit); svc 0
    "arm64": (183, struct.pack("<3I", 0xD2800000, 0xD2800BA8, 0xD4000001)),
}
"""The engine's word for an architecture -> ELF's number for it, and `exit(0)`."""


def program(architecture: str) -> bytes | None:
    """A static ELF executable that exits with 0, or `None` for an architecture it is not written for.

    One segment that holds the whole file, see `man 5 elf`.
    """
    if architecture not in _MACHINES:
        return None
    machine, code = _MACHINES[architecture]
    start = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES
    size = start + len(code)
    # 64 bit, little endian, version 1; ET_EXEC.
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH",
        *(2, machine, 1, LOAD_ADDRESS + start, ELF_HEADER_BYTES, 0, 0),
        *(ELF_HEADER_BYTES, PROGRAM_HEADER_BYTES, 1, 0, 0, 0),
    )
    # PT_LOAD, readable and executable.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, PAGE_BYTES)
    return header + segment + code


async def import_probe_image(settings: Settings, architecture: str) -> bool:
    """Give the engine the image; `False` when there is no program for its architecture.

    Raises `EngineError` or `EngineUnavailableError`.
    """
    content = program(architecture)
    if content is None:
        return False
    repository, _, tag = REFERENCE.partition(":")
    query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": f'ENTRYPOINT ["/{PROGRAM}"]'}
    transport = httpx.AsyncHTTPTransport(uds=socket_path_of(settings.docker_host))
    try:
        async with httpx.AsyncClient(transport=transport, timeout=settings.engine_timeout_s) as engine:
            answer = await engine.post("http://engine/images/create", params=query, content=_archive(content))
    except httpx.HTTPError as error:
        raise EngineUnavailableError(f"import an image: the Docker Engine does not answer ({error})") from error
    # The engine answers 200 first and tells a failure in the body's JSON lines.
    if not answer.is_success or '"error"' in answer.text:
        raise EngineError(f"import an image: {answer.text.strip()}")
    return True


def _archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(PROGRAM)
        entry.size = len(content)
        entry.mode = 0o755
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
