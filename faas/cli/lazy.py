"""Commands whose options are made when they are needed: `faas --help` must not wait for pydantic and its friends."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lazy"]


def lazy(module: str, function: str) -> type[TyperCommand]:
    """A command class that takes its options and its body from `module.function` when somebody asks for them."""

    class LazyCommand(TyperCommand):
        def get_params(self, ctx: Any) -> Any:
            if self.callback is None or not hasattr(self, "loaded"):
                real = _build(getattr(importlib.import_module(module), function))
                self.params = real.params
                self.callback = real.callback
                self.loaded = True
            return super().get_params(ctx)

    return LazyCommand


def _build(function: Callable[..., None]) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return typer.main.get_command(app)
