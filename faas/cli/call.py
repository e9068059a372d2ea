"""`faas call`: run a function; its answer goes to stdout byte for byte, its outcome is the exit code."""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from faas import __version__
from faas.cli.answers import AnswerPrinter
from faas.cli.apps import AppName
from faas.cli.bodies import file_body, stdin_body, text_body
from faas.cli.calls import print_result, wait_for
from faas.cli.output import Output, print_json
from faas.cli.session import Session, with_session
from faas.cli.urls import run_url
from faas.cli.values import parse_duration_s, parse_headers, route_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faas.cli.bodies import Body

__all__ = ["call"]


@with_session
def call(
    session: Session,
    *,
    app: AppName,
    path: Annotated[str, typer.Argument(metavar="PATH", parser=route_path, help="The route's path, with a ?query.")],
    data: Annotated[str | None, typer.Option("--data", "-d", metavar="TEXT", help="Send this text.")] = None,
    data_file: Annotated[str | None, typer.Option(metavar="FILE", help="Send this file; - is standard input.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-X", metavar="METHOD", help="POST with data, else GET.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A request header; repeatable.")
    ] = None,
    is_async: Annotated[bool, typer.Option("--async", help="Do not wait: print the call's id.")] = False,
    delay: Annotated[
        int | None,
        typer.Option(metavar="DURATION", parser=parse_duration_s, help="Async: begin so much later."),
    ] = None,
    not_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Async: begin no earlier than this RFC 3339 time.")
    ] = None,
    expires: Annotated[
        int | None,
        typer.Option(metavar="DURATION", parser=parse_duration_s, help="Async: do not begin later than after this."),
    ] = None,
    priority: Annotated[int | None, typer.Option(metavar="0|1|2", min=0, max=2, help="Async: 2 goes first.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Run it once, however often it is sent with this key.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of an async call, write its answer.")] = False,
    timeout: Annotated[
        int | None,
        typer.Option(metavar="DURATION", parser=parse_duration_s, help="With --wait: at most so long."),
    ] = None,
    include: Annotated[bool, typer.Option("--include", "-i", help="Show status and headers, too.")] = False,
) -> None:
    """Run a function.

    Standard input goes to it when it is no terminal and neither --data nor --data-file is given.
    """
    # asyncio and the HTTP connection: only this command needs them.
    from faas.cli import exchange

    headers = [("User-Agent", f"faas/{__version__}"), *parse_headers(header or ())]
    order = {"X-Delay": delay, "X-Not-Before": not_before, "X-Expires": expires, "X-Priority": priority}
    headers += [(name, str(value)) for name, value in order.items() if value is not None]
    if idempotency_key is not None:
        headers.append(("Idempotency-Key", idempotency_key))
    is_async = is_async or any(value is not None for value in order.values())
    if is_async:
        headers.append(("Prefer", "respond-async"))
    is_accepting = is_async or wait
    printer = AnswerPrinter(url=session.url, is_including=include and not wait, is_expecting_id=is_accepting)
    with _opened_body(data, data_file) as body:
        request = exchange.Exchange(
            url=session.url + run_url(app, path),
            method=(method or ("GET" if body is None else "POST")).upper(),
            headers=headers,
            body=body,
            is_verifying_tls=session.is_verifying_tls,
        )
        exchange.run(request, printer)
    call_id = printer.end()
    if not call_id:
        return
    if wait:
        wait_for(session, call_id, timeout_s=timeout)
        print_result(session, call_id, is_including=include)
    elif session.output is Output.JSON:
        print_json({"call_id": call_id})
    else:
        sys.stdout.write(f"{call_id}\n")


@contextmanager
def _opened_body(data: str | None, data_file: str | None) -> "Iterator[Body | None]":
    if data is not None and data_file is not None:
        raise typer.BadParameter("give either --data or --data-file")
    if data is not None:
        yield text_body(data)
    elif data_file is not None and data_file != "-":
        with file_body(data_file) as body:
            yield body
    else:
        body_or_none = stdin_body()
        # Nothing at all on standard input is nothing to send, unless somebody asked for it.
        yield body_or_none if data_file or (body_or_none and body_or_none.first) else None
