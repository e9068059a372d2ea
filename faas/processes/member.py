"""One satellite, as the primary has it: its process, the line to it, and what it has been told and asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from faas.processes import messages as m
from faas.processes.channel import Channel, ForeignMessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from faas.processes.lender import Lender
    from faas.recorder import CallView

__all__ = ["Member"]

logger = logging.getLogger(__name__)

ANSWER_S = 1.0
"""How long an answer may take; a satellite that is stuck must not keep whoever asks the primary."""


class Member:
    """See above. `handlers` hear of what is no affair of the lender's or ours."""

    def __init__(
        self,
        number: int,
        lender: Lender,
        handlers: Mapping[type[m.Message], Callable[[Any, int], None]],
        *,
        on_report: Callable[[m.Report], None],
    ) -> None:
        self.number = number
        self.report: m.Report | None = None
        """The last one."""
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[bool] = loop.create_future()
        """Whether it serves; False when it died before."""
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when it says nothing more."""
        self.process: asyncio.subprocess.Process | None = None
        self._lender = lender
        self._on_report = on_report
        self._channel: Channel
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[CallView | None]] = {}
        self._handlers: dict[type[m.Message], Callable[[Any, int], None]] = {
            m.Ready: lambda _message, _fd: self.ready.set_result(True),
            m.Obeyed: lambda message, _fd: self._answered(message.number, None),
            m.Answer: lambda message, _fd: self._answered(message.number, message.view),
            m.Claim: lambda message, _fd: lender.claim(self, message),
            m.Withdrawal: lambda message, _fd: lender.withdraw(self, message),
            m.Return: lambda message, _fd: lender.take_back(self, message),
            m.Recalled: lambda message, _fd: lender.recalled(self, message),
            m.Break: lambda message, _fd: lender.broke(self, message),
            m.Report: self._reported,
            **handlers,
        }

    def __repr__(self) -> str:
        return f"<Member {self.number}, process {self.process.pid if self.process is not None else '-'}>"

    @property
    def is_alive(self) -> bool:
        """Whether it can be told anything."""
        return not self.gone.done()

    async def spawn(self, listeners: list[socket.socket]) -> None:
        """Start its process; it owns the listening sockets, so that nobody's connections wait in them after its end."""
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno(), *(listener.fileno() for listener in listeners)]
        self._channel = Channel(ours, self._heard, self._lost)
        with contextlib.ExitStack() as stack:
            for sock in (theirs, *listeners):
                stack.enter_context(sock)
            try:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # what is imported is what is imported here, and nothing that lies in the current folder
                    "-m",
                    "faas.processes.satellite",
                    *map(str, (os.getpid(), *fds)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=fds,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            except BaseException:
                self._channel.close()
                self._lost()
                raise

    def send(self, message: m.Message) -> None:
        """Tell it something; nothing when it is gone."""
        self._channel.send(message)

    async def ask(self, make: Callable[[int], m.Message]) -> CallView | None:
        """Send what `make` makes of a new number, and return the answer; None also when it is late, or gone."""
        number = next(self._numbers)
        answer: asyncio.Future[CallView | None] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            self.send(make(number))
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            logger.warning("satellite_not_answering", extra={"number": self.number})
            return None
        finally:
            del self._questions[number]

    def kill(self) -> None:
        """End its process."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    def _heard(self, message: m.Message, fd: int) -> None:
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ForeignMessageError(repr(message))
        handler(message, fd)

    def _answered(self, number: int, view: CallView | None) -> None:
        answer = self._questions.get(number)
        if answer is not None and not answer.done():
            answer.set_result(view)

    def _reported(self, report: m.Report, _fd: int) -> None:
        self.report = report
        self._on_report(report)

    def _lost(self) -> None:
        """It is gone, or said what makes no sense: either way it serves no more."""
        self.kill()
        self.gone.set_result(None)
        if not self.ready.done():
            self.ready.set_result(False)
        for answer in self._questions.values():
            if not answer.done():
                answer.set_result(None)
        self._lender.lost(self)
