"""The image that `faas doctor` starts: a program that ends at once."""

from __future__ import annotations

import struct
from contextlib import closing
from typing import TYPE_CHECKING

from faas.runner.executors.docker_engine import DockerEngine
from faas.runner.executors.docker_tiny_image import TinyImage

if TYPE_CHECKING:
    from faas.config import Settings

__all__ = ["PROBE", "import_probe_image"]

PROBE = TinyImage(
    repository="faas/doctor",
    code={
        # xor edi, edi; mov eax, 60 (exit); syscall
        "amd64": bytes.fromhex("31ff b83c000000 0f05"),
        # mov x0, 0; mov x8, 93 (exit); svc 0
        "arm64": struct.pack("<3I", 0xD2800000, 0xD2800BA8, 0xD4000001),
    },
)


async def import_probe_image(settings: Settings) -> str | None:
    """Give the engine the image where it is missing; its reference, or `None` when the engine can't run it.

    Raises `EngineError` or `EngineUnavailableError`.
    """
    engine = DockerEngine(docker_host=settings.docker_host, timeout_s=settings.engine_timeout_s, threads=1)
    with closing(engine):
        return await engine.call("import an image", PROBE.ensure)
