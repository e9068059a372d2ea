"""`faas serve`: run a node."""

from __future__ import annotations

import importlib

import typer

from faas.cli import settings

__all__ = ["serve"]


def serve(**given: object) -> None:
    """Run a node until it is told to stop."""
    node = settings.load(given)
    wiring = importlib.import_module("faas.wiring")
    raise typer.Exit(wiring.serve(node))


settings.add_flags(serve)
