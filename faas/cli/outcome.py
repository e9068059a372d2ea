"""How a call ended, as a command's last word and exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from faas.cli.answers import FIRST_ERROR_STATUS
from faas.cli.errors import next_step
from faas.cli.exits import ExitCode, of_call
from faas.cli.output import Output, print_note

if TYPE_CHECKING:
    from typing import NoReturn

    from faas.cli.client import CallJSON

__all__ = ["finish"]


def finish(call: CallJSON, output: Output) -> NoReturn:
    """End the command with the call's outcome as its exit code, and say why it failed."""
    reason = call.get("reason") or ""
    exit_code = of_call(call.get("status", ""), reason)
    if exit_code is ExitCode.OK and ((call.get("result") or {}).get("status_code") or 0) >= FIRST_ERROR_STATUS:
        exit_code = ExitCode.FUNCTION_FAILED
    if exit_code is not ExitCode.OK and output is Output.TABLE:
        answered = f"the function answered {(call.get('result') or {}).get('status_code')}"
        cause = call.get("error") or reason or answered
        print_note(f"The call ended in {call.get('status')}: {cause}")
        if hint := next_step(reason, call_id=call.get("id", "")):
            print_note(hint)
    raise typer.Exit(exit_code)
