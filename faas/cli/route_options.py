"""The fields of a route as options, the same for the commands that make one and that change one."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from faas.cli.session import option
from faas.cli.values import parse_duration_s, parse_retries
from faas.models import CallType, FormatName, PullPolicy

if TYPE_CHECKING:
    from faas.cli.client import RouteJSON

__all__ = ["with_route_options"]

OPTIONS = {
    "memory": Annotated[
        int | None, typer.Option("--memory", "-m", metavar="MIB", help="Memory limit in MiB. Server: 128.")
    ],
    "cpus": Annotated[float | None, typer.Option(metavar="N", help="CPUs' worth of time; 0: no limit. Server: 0.")],
    "type": Annotated[CallType | None, typer.Option("--type", "-t", help="Do callers wait or poll? Server: sync.")],
    "format": Annotated[
        FormatName | None, typer.Option("--format", "-f", help="The function's contract. Server: default.")
    ],
    "timeout": Annotated[
        int | None,
        typer.Option(metavar="DURATION", parser=parse_duration_s, help="Longest run: 30, 90s, 5m ... Server: 30s."),
    ],
    "idle_timeout": Annotated[
        int | None,
        typer.Option(metavar="DURATION", parser=parse_duration_s, help="Idle time of a hot container. Server: 30s."),
    ],
    "stream_idle_s": Annotated[
        int | None,
        typer.Option(
            "--stream-idle",
            metavar="DURATION",
            parser=parse_duration_s,
            help="Longest silence within an answer; 0: no limit. Server: 0.",
        ),
    ],
    "max_concurrency": Annotated[
        int | None,
        typer.Option(metavar="N", help="Containers at the same time on a node; 0: as memory allows. Server: 0."),
    ],
    "concurrency": Annotated[
        int | None, typer.Option(metavar="N", help="Calls at the same time in a container (http-stream). Server: 1.")
    ],
    "min_warm": Annotated[int | None, typer.Option(metavar="N", help="Containers kept ready on a node. Server: 0.")],
    "freeze_ms": Annotated[
        int | None, typer.Option(metavar="MS", help="Pause a container that is idle so long; 0: never. Server: 0.")
    ],
    "retries": Annotated[
        dict[str, object] | None,
        typer.Option(
            metavar="MAX|KEY=VALUE,...",
            parser=parse_retries,
            help="Failed async calls run again: 5, or max=5,backoff=fixed,delay_s=2,on=timeout+502; 0: never.",
        ),
    ],
    "jwt_key": Annotated[str | None, typer.Option(metavar="KEY", help="Callers need a JWT signed by this key.")],
    "pull": Annotated[PullPolicy | None, typer.Option(help="When the image is pulled. Server: missing.")],
}
"""Name in the API -> option; none of them is given by default."""


def with_route_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these options added; its parameter `fields` holds those that were given."""
    own = [one for one in inspect.signature(command).parameters.values() if one.name != "fields"]

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        fields: RouteJSON = {  # type: ignore[assignment]
            name: value for name in OPTIONS if (value := options.pop(name)) is not None
        }
        command(*arguments, fields=fields, **options)

    parameters = [*own, *(option(name, annotation, None) for name, annotation in OPTIONS.items())]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
