"""Images made of a handful of bytes: one static program and nothing else. No registry is needed to have one."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faas.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TinyImage"]

LOAD_ADDRESS = 0x400000
ELF_HEADER_BYTES = 64
PROGRAM_HEADER_BYTES = 56
PAGE_BYTES = 0x1000
ELF_MACHINES = {"amd64": 62, "arm64": 183}
"""The engine's word for an architecture -> ELF's number for it."""

TAG_CHARACTERS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyImage:
    """An image whose only file is a program of some machine instructions."""

    repository: str
    code: Mapping[str, bytes]
    """The engine's word for an architecture -> instructions that need no stack, no data and no library."""

    def program(self, architecture: str) -> bytes | None:
        """A static ELF executable, or `None` for an architecture without code.

        One segment that holds the whole file, see `man 5 elf`.
        """
        code = self.code.get(architecture)
        if code is None:
            return None
        start = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES
        size = start + len(code)
        # 64 bit, little endian, version 1; ET_EXEC.
        header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
            "<HHIQQQIHHHHHH",
            *(2, ELF_MACHINES[architecture], 1, LOAD_ADDRESS + start, ELF_HEADER_BYTES, 0, 0),
            *(ELF_HEADER_BYTES, PROGRAM_HEADER_BYTES, 1, 0, 0, 0),
        )
        # PT_LOAD, readable and executable.
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, PAGE_BYTES)
        return header + segment + code

    def ensure(self, client: Any) -> str | None:
        """The reference of the image, which is on the engine then; `None` when it has no code for the engine.

        For a thread of `DockerEngine`. The tag is made of the program: another release's image is never taken for it.
        """
        program = self.program(client.version(api_version=False)["Arch"])
        if program is None:
            return None
        tag = hashlib.sha256(program).hexdigest()[:TAG_CHARACTERS]
        reference = f"{self.repository}:{tag}"
        if not client.images(name=reference):
            name = self.repository.rpartition("/")[2]
            answer = client.import_image_from_data(
                _archive(name, program), repository=self.repository, tag=tag, changes=[f'ENTRYPOINT ["/{name}"]']
            )
            # The engine answers 200 first and tells a failure in the body's JSON lines.
            if '"error"' in answer:
                raise EngineError(f"import image {reference}: {answer.strip()}")
        return reference


def _archive(name: str, program: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(program)
        entry.mode = 0o755
        archive.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()
