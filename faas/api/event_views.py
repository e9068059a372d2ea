"""The data of each kind of event that the API streams."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from faas.api.schemas import AttemptView, CallView
from faas.models import CallStatus, Reason

__all__ = ["AppStateView", "AttemptEndedView", "EndView", "InterruptedView", "LogLineView", "StateView"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class StateView(_Event):
    """`state`: the call came into it."""

    status: CallStatus
    at: datetime | None
    attempt: int = Field(description="Of `running`: which attempt runs; otherwise 0.")
    reason: Reason | None
    error: str


class AttemptEndedView(_Event):
    """`attempt`: one try at running the call has ended."""

    attempt: AttemptView


class LogLineView(_Event):
    """`log`: a line of the attempt's log."""

    attempt: int
    line: str = Field(description="With its line end; bytes that are no UTF-8 are replaced, `/log` has them.")


class EndView(_Event):
    """`end`: all was told; nothing comes any more."""

    call: CallView


class InterruptedView(_Event):
    """`interrupted`: the stream ends before what it tells of."""

    code: str
    message: str


class AppStateView(_Event):
    """`state`: a queued call of the app came into it."""

    call_id: str
    app_name: str
    path: str
    status: CallStatus
    at: datetime
    attempt: int = Field(description="How many attempts began.")
    reason: Reason | None
    error: str
