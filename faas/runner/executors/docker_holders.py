"""Holders of network namespaces, as containers on a Docker Engine; see `NetworkPool`."""

from __future__ import annotations

import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from faas.ids import new_id
from faas.runner.executors.docker_engine import ENGINE_FAILURES
from faas.runner.executors.docker_spec import holder_config
from faas.runner.executors.docker_tiny_image import TinyImage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from faas.runner.executors.docker_engine import DockerEngine
    from faas.runner.executors.docker_exits import ExitWatcher

__all__ = ["HOLDER", "DockerHolders", "can_be_held"]

HOLDER = TinyImage(
    repository="faas/network-holder",
    code={
        # again: mov eax, 34 (pause); syscall; jmp again
        "amd64": bytes.fromhex("b822000000 0f05 ebf7"),
        # again: mov x0..x3, 0; mov x8, 73 (ppoll, of nothing for ever); svc 0; b again
        "arm64": struct.pack("<7I", 0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001, 0x17FFFFFA),
    },
)
"""A program that waits, and as the first process of its container ends by SIGKILL only."""


def can_be_held(network: str) -> bool:
    """Whether containers on this network have namespaces of their own."""
    return network != "host" and not network.startswith("container:")


class DockerHolders:
    """See `Holders`."""

    def __init__(self, engine: DockerEngine, exits: ExitWatcher, *, network: str, labels: Mapping[str, str]) -> None:
        self._engine = engine
        self._exits = exits
        self._network = network
        self._labels = labels

    def make(self, name: str = "") -> asyncio.Future[str | None]:
        return self._engine.submit("make a network holder", partial(self._make, name or f"network-{new_id()}"))

    async def remove(self, holder_id: str) -> None:
        await self._engine.remove_container(holder_id)

    def on_end(self, holder_id: str, callback: Callable[[], None]) -> None:
        watched = self._exits.watch(holder_id)
        watched.killed_by_us = True  # why it ended is all the same: nobody need find out before its end is told
        watched.exit.add_done_callback(lambda _: callback())

    def _make(self, name: str, client: Any) -> str | None:
        image = HOLDER.ensure(client)
        if image is None:
            return None
        config = holder_config(image, network=self._network, labels=self._labels)
        holder_id = str(client.create_container_from_config(config, name)["Id"])
        try:
            client.start(holder_id)
        except ENGINE_FAILURES:
            with suppress(*ENGINE_FAILURES):
                client.remove_container(holder_id, force=True)
            raise
        return holder_id
