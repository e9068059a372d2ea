"""What a satellite knows of one function: who waits here, what was claimed for them, and the places that it has."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faas.processes.borrowed import Place
    from faas.runner.invocation import Invocation

__all__ = ["Line"]


class Line:
    """The calls of one function key that wait here, its idle places, and the claims that are out for it."""

    __slots__ = ("claims", "idle", "places", "used", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Invocation] = deque()
        self.claims: dict[int, None] = {}
        """The oldest first."""
        self.used: list[int] = []
        """Claims of calls that had their turn in another claim's place; not withdrawn yet."""
        self.idle: list[Place] = []
        """The one used last at the end."""
        self.places: dict[Place, None] = {}
        """All places, idle ones too."""

    def use_claim(self) -> None:
        """The first call in line has its turn: the next one that comes must not take over its place in the line."""
        if self.claims:
            claim_id = next(iter(self.claims))
            del self.claims[claim_id]
            self.used.append(claim_id)

    def forget(self, claim_id: int) -> None:
        """A claim was answered."""
        if claim_id in self.claims:
            del self.claims[claim_id]
        else:
            self.used.remove(claim_id)

    @property
    def is_unused(self) -> bool:
        return not (self.waiting or self.claims or self.used or self.places)
