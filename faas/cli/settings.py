"""The settings of `faas.config` as flags, as a table and as a reference: all derived from the model itself."""

from __future__ import annotations

import inspect
import os
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin
from urllib.parse import urlsplit

import typer
from annotated_types import Ge, Gt, Le
from pydantic import AliasChoices, SecretStr, ValidationError

from faas.config import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic.fields import FieldInfo

__all__ = ["MASK", "Setting", "add_flags", "describe", "load", "masked", "origin_of", "reference"]

MASK = "**********"

_BYTE_UNITS = (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, as a person meets it."""

    name: str
    env: tuple[str, ...]
    """The variables that set it; the first one that is set counts."""
    kind: str
    """What may be written: `integer >= 0`, `docker`, `all | api | runner` ..."""
    default: str
    description: str
    choices: tuple[str, ...] = ()
    is_switch: bool = False

    @property
    def flag(self) -> str:
        """Its flag."""
        return f"--{self.name.replace('_', '-')}"


def describe() -> list[Setting]:
    """All settings, in the order of the model."""
    return [_setting(name, field) for name, field in Settings.model_fields.items()]


def add_flags(command: Callable[..., None], *own: inspect.Parameter) -> None:
    """Give a command that takes `**given` a flag for each setting, after its own options.

    `None` is "not given", so that the environment counts.
    """
    parameters = [*own, *(_flag(setting) for setting in describe())]
    # What typer builds the command line from.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def load(given: Mapping[str, object]) -> Settings:
    """The settings from flags (`None` is not given) over the environment. Exits with 2 naming each wrong one."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [_problem(dict(details), given) for details in error.errors(include_url=False)]
        raise typer.BadParameter("; ".join(problems)) from None


def masked(settings: Settings) -> dict[str, object]:
    """Each setting's value for showing: secrets, and passwords in URLs, are masked."""
    return {name: _mask(getattr(settings, name)) for name in Settings.model_fields}


def origin_of(setting: Setting, given: Mapping[str, object]) -> str:
    """Where a setting's value comes from: its flag, a variable, or `default`."""
    if given.get(setting.name) is not None:
        return setting.flag
    return next((name for name in setting.env if os.environ.get(name)), "default")


def reference() -> str:
    """`docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        "<!-- Generated from faas/config.py: `faas config --reference > docs/configuration.md`. -->",
        "",
        "Every setting is a flag of `faas serve` and an environment variable. A flag counts before a variable, the",
        "variables count in the order in which they stand here, an empty variable counts as not set. `faas config`",
        "prints the values in effect and where each comes from; secrets are masked.",
        "",
        "| flag | environment | value | default | |",
        "|---|---|---|---|---|",
    ]
    for setting in describe():
        env = " ".join(f"`{name}`" for name in setting.env)
        cells = (f"`{setting.flag}`", env, setting.kind, setting.default, setting.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _setting(name: str, field: FieldInfo) -> Setting:
    alias = field.validation_alias
    others = tuple(str(choice) for choice in alias.choices) if isinstance(alias, AliasChoices) else ()
    choices = tuple(map(str, get_args(field.annotation))) if get_origin(field.annotation) is Literal else ()
    return Setting(
        name=name,
        # pydantic-settings takes the setting's own name after its aliases, where they are not the same.
        env=tuple(dict.fromkeys((*others, f"FAAS_{name.upper()}"))),
        kind=" | ".join(choices) or _kind(field),
        default=_default(name, field.default),
        description=field.description or "",
        choices=choices,
        is_switch=field.annotation is bool,
    )


def _kind(field: FieldInfo) -> str:
    if field.annotation is bool:
        return "true | false"
    words = {int: "integer", float: "number", SecretStr: "secret"}
    kind = words.get(field.annotation, "text") if isinstance(field.annotation, type) else "text"
    if kind == "text" and field.annotation is not str:
        kind = "path"
    bounds = []
    for limit in field.metadata:
        if isinstance(limit, Ge):
            bounds.append(f">= {limit.ge}")
        elif isinstance(limit, Gt):
            bounds.append(f"> {limit.gt}")
        elif isinstance(limit, Le):
            bounds.append(f"<= {limit.le}")
    return " ".join([kind, ", ".join(bounds)]).rstrip()


def _default(name: str, value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and name.endswith("_bytes"):
        for unit, size in _BYTE_UNITS:
            if value and value % size == 0:
                return f"{value} ({value // size} {unit})"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) or "empty"


def _flag(setting: Setting) -> inspect.Parameter:
    # Brackets would be taken for markup.
    text = f"{setting.description} ({', '.join(setting.env)}; default {setting.default})".replace("[", "\\[")
    if setting.is_switch:
        option = typer.Option(f"{setting.flag}/--no-{setting.flag[2:]}", help=text, show_default=False)
        annotation: object = Annotated[bool | None, option]
    else:
        option = typer.Option(
            setting.flag,
            help=text,
            show_default=False,
            metavar=setting.kind.split()[0].upper() if not setting.choices else "|".join(setting.choices),
            autocompletion=lambda incomplete: [word for word in setting.choices if word.startswith(incomplete)],
        )
        annotation = Annotated[str | None, option]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)


def _problem(details: dict[str, object], given: Mapping[str, object]) -> str:
    """One of pydantic's complaints, with the flag or the variable that has to change; never with its value."""
    message = str(details["msg"]).removeprefix("Value error, ")
    place = details["loc"]
    if not isinstance(place, tuple) or not place:
        return message
    name = str(place[0])
    setting = next((one for one in describe() if name == one.name or name in one.env), None)
    if setting is None:
        return f"{name}: {message}"
    return f"{origin_of(setting, given)}: {message}"


def _mask(value: object) -> object:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, str) and "://" in value:
        url = urlsplit(value)
        if url.password:
            user_and_password, _, host = url.netloc.rpartition("@")
            return url._replace(netloc=f"{user_and_password.partition(':')[0]}:{MASK}@{host}").geturl()
    return value if isinstance(value, bool | int | float | types.NoneType) else str(value)
