"""Lends places in this node's containers to its satellites: the primary's side of `Claim`, `Grant` and what follows.

    in line -- granted --> out -- returned --> the place is the pool's again
       |                    +-- broken --> settling -- its call runs no more --> the pool's, or its container's end
       +-- withdrawn, refused
A claim waits in the pool's line like a call, and a loan takes a place like one: the pool does not tell them apart.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from faas.errors import (
    AppNotFoundError,
    KilledError,
    NoCapacityError,
    OutOfMemoryError,
    RouteNotFoundError,
    ShuttingDownError,
)
from faas.models import FormatName
from faas.processes.failure import Failure
from faas.processes.messages import (
    Break,
    Claim,
    Grant,
    Output,
    Recall,
    Recalled,
    Refusal,
    Return,
    Settled,
    Withdrawal,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from faas.errors import FaasError
    from faas.processes.messages import Message
    from faas.runner.call_log import LogBuffer
    from faas.runner.container import HotContainer
    from faas.runner.function_pool import FunctionPool, PlaceSeeker
    from faas.runner.functions import Function, FunctionTable
    from faas.runner.invocation import LaunchTimings
    from faas.runner.keeper import Keeper
    from faas.runner.pool import Pool
    from faas.tasks import TaskSet

__all__ = ["Borrower", "Lender", "Loan"]

logger = logging.getLogger(__name__)

RECALL_S = 0.1
"""How long a satellite may take to answer a recall; then a container is made without it."""


class Borrower(Protocol):
    """A satellite, as far as it matters here; compared by identity."""

    def send(self, message: Message) -> None:
        """Tell it something."""


class Loan:
    """A claim in line, then a place that a satellite uses."""

    __slots__ = ("_lender", "borrower", "container", "function", "group", "id", "launch", "log")

    def __init__(self, lender: Lender, borrower: Borrower, claim_id: int, function: Function) -> None:
        self._lender = lender
        self.borrower = borrower
        self.id = claim_id
        self.function = function
        self.launch: LaunchTimings | None = None
        self.log: LogBuffer | None = None
        self.container: HotContainer | None = None
        """Set when it was granted; so is the next one."""
        self.group: _FunctionLoans

    def __repr__(self) -> str:
        return f"<Loan {self.id} of {self.function}: {self.container or 'in line'}>"

    # --- PlaceSeeker, container.Loan

    def run_in(self, container: HotContainer) -> None:
        """A place is its own."""
        self._lender.grant(self, container)

    def output_received(self, data: bytes) -> None:
        """The container wrote something."""
        assert self.container is not None
        assert self.container.engine is not None
        self.borrower.send(Output(container_id=self.container.engine.id, data=data))


class _FunctionLoans:
    """The places of one function that are out, and the recall that is under way; the pool's `Loans`."""

    def __init__(self, lender: Lender, pool: FunctionPool) -> None:
        self._lender = lender
        self._pool = pool
        self._timer: asyncio.TimerHandle | None = None
        self.kept: dict[Loan, None] = {}
        """Those that were not recalled yet: they may run nothing."""
        self.asked: set[Borrower] = set()
        """Who has not answered."""

    def recall(self) -> bool:
        """See `Loans.recall`."""
        if self.asked or not self.kept:
            return bool(self.asked)
        waiting = {_borrower(entry[0]) for entry in self._pool.waiting}
        # Who waits alone has no idle place itself, and keeps what it has for its calls.
        alone = waiting.pop() if len(waiting) == 1 else None
        for loan in list(self.kept):
            if loan.borrower is not alone:
                del self.kept[loan]
                self.asked.add(loan.borrower)
        for borrower in list(self.asked):
            borrower.send(Recall(key=self._pool.function.key))
        if self.asked:
            self._timer = asyncio.get_running_loop().call_later(RECALL_S, self._give_up)
        return bool(self.asked)

    def answered(self, borrower: Borrower) -> None:
        """A satellite has given back what it could, or is gone."""
        if borrower in self.asked:
            self.asked.discard(borrower)
            if not self.asked:
                self._go_on()

    def _give_up(self) -> None:
        logger.warning("recall_not_answered", extra={"function": str(self._pool.function)})
        self.asked.clear()
        self._go_on()

    def _go_on(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lender.pool.grow(self._pool)


def _group(pool: FunctionPool) -> _FunctionLoans:
    loans = pool.loans
    assert isinstance(loans, _FunctionLoans)
    return loans


def _borrower(seeker: PlaceSeeker) -> Borrower | None:
    """On whose behalf something waits; None for a call of this process."""
    return seeker.borrower if isinstance(seeker, Loan) else None


class Lender:
    """See above. `on_oom` hears of each container that passed its memory limit under a satellite's call."""

    def __init__(
        self, pool: Pool, keeper: Keeper, table: FunctionTable, tasks: TaskSet, *, on_oom: Callable[[], None]
    ) -> None:
        self.pool = pool
        self._keeper = keeper
        self._table = table
        self._tasks = tasks
        self._on_oom = on_oom
        self._loans: dict[tuple[Borrower, int], Loan] = {}
        """All of them, those in line too."""

    def __repr__(self) -> str:
        out = sum(loan.container is not None for loan in self._loans.values())
        return f"<Lender {out} out, {len(self._loans) - out} in line>"

    # --- a satellite asks

    def claim(self, borrower: Borrower, claim: Claim) -> None:
        """A call there wants a place."""
        function = self._function_of(claim)
        if function is None:
            failure = Failure.of(NoCapacityError("The route was changed while the call waited; try again"))
            borrower.send(Refusal(id=claim.id, failure=failure, start_log=b"", is_stale=True))
            return
        loan = self._loans[borrower, claim.id] = Loan(self, borrower, claim.id, function)
        if self.pool.is_closed:
            self.refuse(loan, ShuttingDownError())
            return
        pool = self.pool.of(function)
        if pool.loans is None:
            pool.loans = _FunctionLoans(self, pool)
        try:
            self.pool.submit(loan, claim.deadline)
        except NoCapacityError as error:
            self.refuse(loan, error)

    def _function_of(self, claim: Claim) -> Function | None:
        """By its key: a call that began before a change runs with the function of before while that has containers."""
        pool = self.pool.find(claim.key)
        try:
            function = pool.function if pool is not None else self._table.get(claim.app_name, claim.path)
        except (AppNotFoundError, RouteNotFoundError):
            return None
        return function if function.key == claim.key and function.format is FormatName.HTTP_STREAM else None

    def withdraw(self, borrower: Borrower, message: Withdrawal) -> None:
        """Claims are not needed any more; those that were granted meanwhile come back by themselves."""
        for claim_id in message.ids:
            loan = self._loans.get((borrower, claim_id))
            if loan is not None and self.pool.withdraw(loan):
                del self._loans[borrower, claim_id]

    def take_back(self, borrower: Borrower, message: Return) -> None:
        """A place is used no more."""
        loan = self._loans[borrower, message.id]
        container = self._leave(loan)
        if not message.is_fit:
            self.pool.drain(container)
        self.pool.release(container)

    def recalled(self, borrower: Borrower, message: Recalled) -> None:
        """A recall was obeyed."""
        pool = self.pool.find(message.key)
        if pool is not None and pool.loans is not None:
            _group(pool).answered(borrower)

    def broke(self, borrower: Borrower, message: Break) -> None:
        """A call got no answer, or must end."""
        loan = self._loans[borrower, message.id]
        container = loan.container
        assert container is not None
        error = message.failure.error()
        if message.is_stopped:
            container.end_reason = f"The container was ended because of another call in it: {error.message}"
            self.pool.drain(container)
        elif container.end_reason:
            error = KilledError(container.end_reason)
        self._tasks.spawn(self._settle(loan, container, error, is_stopped=message.is_stopped), name=f"loan/{loan.id}")

    def lost(self, borrower: Borrower) -> None:
        """A satellite is gone; nobody knows what ran in its places."""
        for loan in [loan for loan in self._loans.values() if loan.borrower is borrower]:
            if loan.container is None:
                self.pool.withdraw(loan)
                del self._loans[borrower, loan.id]
            else:
                container = self._leave(loan)
                container.end_reason = "The process that ran another call in the container has died"
                self.pool.stop(container)
        for pool in list(self.pool):
            if pool.loans is not None:
                _group(pool).answered(borrower)

    # --- the pool answers

    def grant(self, loan: Loan, container: HotContainer) -> None:
        """A claim has its place."""
        loan.container = container
        loan.group = _group(container.pool)
        is_recalled = any(_borrower(entry[0]) is not loan.borrower for entry in container.pool.waiting)
        if not is_recalled:
            loan.group.kept[loan] = None
        launch = loan.launch
        assert container.engine is not None
        loan.borrower.send(
            Grant(
                id=loan.id,
                container_id=container.engine.id,
                socket_dir=str(container.socket_dir),
                launch_s=(launch.pull_s, launch.create_s, launch.start_s) if launch is not None else None,
                start_log=container.lend(loan),
                is_recalled=is_recalled,
            )
        )

    def refuse(self, seeker: PlaceSeeker, error: FaasError) -> None:
        """There is nothing for a claim."""
        assert isinstance(seeker, Loan)
        del self._loans[seeker.borrower, seeker.id]
        if isinstance(error, OutOfMemoryError):
            self._on_oom()
        start_log = seeker.log.getvalue() if seeker.log is not None else b""
        seeker.borrower.send(Refusal(id=seeker.id, failure=Failure.of(error), start_log=start_log, is_stale=False))

    async def _settle(self, loan: Loan, container: HotContainer, error: FaasError, *, is_stopped: bool) -> None:
        error, goes_on = await self._keeper.settle(container, error, is_stopped=is_stopped)
        if (loan.borrower, loan.id) in self._loans:
            self._leave(loan)
            if goes_on:
                self.pool.release(container)
            else:
                self.pool.stop(container)
        if isinstance(error, OutOfMemoryError):
            self._on_oom()
        loan.borrower.send(Settled(id=loan.id, failure=Failure.of(error)))

    def _leave(self, loan: Loan) -> HotContainer:
        """A loan is out no more; the place is to be released, or the container stopped."""
        container = loan.container
        assert container is not None
        loan.group.kept.pop(loan, None)
        del self._loans[loan.borrower, loan.id]
        container.take_back(loan)
        return container
