"""`faas dead-letters`: calls whose retries are exhausted: list them, run them again, throw them away."""

from typing import TYPE_CHECKING, Annotated

import typer

from faas.cli.apps import AppName
from faas.cli.call_filters import Limit, PathFilter, Since, Until, bulk, collect, query_of
from faas.cli.exits import ExitCode
from faas.cli.output import Output, print_json, print_note, print_table
from faas.cli.session import Session, with_session
from faas.models import Reason

if TYPE_CHECKING:
    from faas.cli.client import BulkJSON

__all__ = ["dead_letters"]

dead_letters = typer.Typer()

ReasonFilter = Annotated[Reason | None, typer.Option(help="Only those that failed for this reason.")]


@dead_letters.command("list")
@with_session
def list_dead_letters(
    session: Session,
    app: AppName,
    reason: ReasonFilter = None,
    path: PathFilter = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 30,
) -> None:
    """List an app's dead letters, newest first."""
    query = query_of(reason=reason, path=path, since=since, until=until)
    found = collect(lambda page: session.client.list_dead_letters(app, page), query, limit)
    if session.output is Output.JSON:
        print_json(found)
        return
    columns = ("id", "path", "reason", "error", "retries", "completed_at")
    print_table(columns, [[call.get(column) for column in columns] for call in found])


@dead_letters.command()
@with_session
def redrive(
    session: Session,
    app: AppName,
    reason: ReasonFilter = None,
    path: PathFilter = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Run an app's dead letters again, each as a new call; those whose route is gone stay."""
    query = query_of(reason=reason, path=path, since=since, until=until)
    done = bulk(lambda page: session.client.redrive(app, page), query)
    _print_done(session, done, f"Retried {done['count']} dead letters of the app {app}.")


@dead_letters.command()
@with_session
def purge(
    session: Session,
    app: AppName,
    reason: ReasonFilter = None,
    path: PathFilter = None,
    since: Since = None,
    until: Until = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Delete an app's dead letters, with their results and logs."""
    if not yes and not typer.confirm(f"Delete the dead letters of the app {app} for good?", err=True):
        print_note("Nothing was deleted. --yes skips the question.")
        raise typer.Exit(ExitCode.CANCELLED)
    query = query_of(reason=reason, path=path, since=since, until=until)
    done = bulk(lambda page: session.client.purge_dead_letters(app, page), query)
    _print_done(session, done, f"Deleted {done['count']} dead letters of the app {app}.")


def _print_done(session: Session, done: "BulkJSON", sentence: str) -> None:
    if session.output is Output.JSON:
        print_json(done)
        return
    print_note(f"{sentence} {done['skipped']} were skipped." if done["skipped"] else sentence)
