"""A place in a hot container that another process of this node has, to run its calls there on its own connection.

    IN LINE -- the pool has a place --> LENT -- given back, clean --------------> the place is free
       |                                  +---- its container is no good -------> the container takes no further call
       +-- refused, withdrawn             +---- a call got no whole answer -----> as after such a call of our own
                                          +---- its holder died ----------------> the container is killed

A lease stands in the line as a call does, by the same rules, and counts as one that runs as long as it is lent: how
many calls its holder runs there, one after the other, is the holder's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from faas.errors import FaasError
    from faas.runner.call_log import LogBuffer
    from faas.runner.container import HotContainer
    from faas.runner.functions import Function
    from faas.runner.invocation import LaunchTimings
    from faas.runner.slot import Slot

__all__ = ["Lease", "LeaseHolder"]


class LeaseHolder(Protocol):
    """The other process, seen from the pool; nothing here may block or fail."""

    def granted(self, lease: Lease) -> None:
        """It has a place."""

    def refused(self, lease: Lease, error: FaasError) -> None:
        """There is no place; what `lease.log` and `lease.launch` say of a container that did not start is its."""

    def wanted_back(self, lease: Lease) -> None:
        """The container takes no further call: this lease is to end with the call that it runs, or now."""

    def output(self, container: HotContainer, data: bytes) -> None:
        """Something that a container wrote belongs to a call of the holder's, or may do so."""


class Lease:
    """One place, asked for or lent."""

    __slots__ = ("function", "holder", "id", "launch", "log", "slot")

    def __init__(self, lease_id: str, function: Function, holder: LeaseHolder) -> None:
        self.id = lease_id
        self.function = function
        self.holder = holder
        self.launch: LaunchTimings | None = None
        self.log: LogBuffer | None = None
        self.slot: Slot[HotContainer] | None = None
        """Ours for the place, out of use; set while it is lent."""

    def __repr__(self) -> str:
        return f"<Lease of {self.function}: {self.slot!r}>"

    def enter(self, container: HotContainer) -> None:
        """Take the place."""
        self.slot = container.lend(self)
        self.holder.granted(self)
