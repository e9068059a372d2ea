"""`faas serve`: run a node."""

from __future__ import annotations

import typer

from faas import server
from faas.cli import settings

__all__ = ["serve"]


def serve(**given: object) -> None:
    """Run a node until it is told to stop."""
    raise typer.Exit(server.serve(settings.load(given)))


settings.add_flags(serve)
