"""An error on its way from one process to another."""

from __future__ import annotations

from dataclasses import dataclass

from faas import errors

__all__ = ["Failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Its class and its message, which is all that a caller sees of it."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: errors.FaasError) -> Failure:
        """What is sent for an error."""
        return cls(kind=type(error).__name__, message=error.message)

    def error(self) -> errors.FaasError:
        """The error again; attributes beside its message are not kept."""
        kind = getattr(errors, self.kind)
        error: errors.FaasError = kind.__new__(kind)
        errors.FaasError.__init__(error, self.message)
        return error
