"""`faas version`: of this command, and of the server."""

import platform

from faas import __version__
from faas.cli.errors import ClientError
from faas.cli.output import Output, print_json, print_record
from faas.cli.session import Session, with_session

__all__ = ["version"]


@with_session
def version(session: Session) -> None:
    """Show the version of this command, and of the server when it answers."""
    versions: dict[str, str | None] = {"client": __version__, "python": platform.python_version(), "server": None}
    problem = ""
    try:
        versions["server"] = session.client.server_version()
    except ClientError as error:
        problem = error.message
    if session.output is Output.JSON:
        print_json(versions)
    else:
        print_record({**versions, "server": versions["server"] or f"none: {problem}"})
