"""`faas doctor`: can this machine run functions, and if not, what has to be done."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import typer

from faas.cli import settings
from faas.cli.checks import Check, State, check_engine, check_node
from faas.cli.errors import ClientError
from faas.cli.exits import ExitCode
from faas.cli.output import Output, print_error, print_json, print_note, print_table
from faas.cli.session import OutputOption, option
from faas.errors import FaasError
from faas.runner.executors.docker import DockerExecutor, DockerOptions

if TYPE_CHECKING:
    from faas.config import Settings

__all__ = ["doctor"]

INSTALLATION_ID = "doctor"
"""Its container is nobody else's: no node's reaper touches it, and it touches no node's."""


def doctor(*, output: Output, **given: object) -> None:
    """Check this machine with the settings that `faas serve` would have, and say what to fix."""
    try:
        checks = asyncio.run(_all_checks(settings.load(given)))
    except FaasError as error:
        print_error(ClientError(error.message, code=error.code), output)
        raise typer.Exit(ExitCode.USAGE) from None
    is_broken = any(check.state is State.BROKEN for check in checks)
    if output is Output.JSON:
        print_json({"ok": not is_broken, "checks": [asdict(check) for check in checks]})
    else:
        _print_report(checks, is_broken=is_broken)
    raise typer.Exit(1 if is_broken else 0)


async def _all_checks(config: Settings) -> list[Check]:
    options = DockerOptions.from_settings(config, installation_id=INSTALLATION_ID, boot_id=uuid.uuid4().hex)
    # One container is started here, which nothing need be made ready for.
    async with DockerExecutor(replace(options, network_pool=0)) as executor:
        return [*await check_engine(executor, config), *check_node(config)]


def _print_report(checks: list[Check], *, is_broken: bool) -> None:
    print_table(("check", "state", "found"), [(check.name, check.state, check.found) for check in checks])
    fixes = [check for check in checks if check.fix]
    for check in fixes:
        print_note(f"{check.name}: {check.fix}")
    print_note("Mend what is broken, then try again." if is_broken else "This machine can run functions: `faas serve`.")


settings.add_flags(doctor, option("output", OutputOption, Output.TABLE))
