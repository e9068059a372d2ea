"""Commands and nouns that are imported when somebody uses them: `faas --help` must not wait for pydantic and its
friends, and a node must not carry the command line's tables and clients for weeks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lazy_command", "lazy_group"]


def lazy_command(module: str, function: str) -> type[TyperCommand]:
    """A command class that takes its options, its help and its body from `module.function` once it is chosen."""

    class LazyCommand(TyperCommand):
        is_loaded = False

        def get_params(self, ctx: Any) -> Any:
            if not self.is_loaded:
                real = _build(_attribute(module, function))
                self.params = real.params
                self.callback = real.callback
                self.help = real.help
                self.is_loaded = True
            return super().get_params(ctx)

    return LazyCommand


def lazy_group(module: str, noun: str) -> type[TyperGroup]:
    """A group class that takes its commands from the `typer.Typer` at `module.noun` once it is chosen."""

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            self._load()
            return super().list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            self._load()
            return super().get_command(ctx, cmd_name)

        def _load(self) -> None:
            if not self.commands:
                real: Any = typer.main.get_command(_attribute(module, noun))
                self.commands = real.commands

    return LazyGroup


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _build(function: Callable[..., None]) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return typer.main.get_command(app)
