"""Everything that a primary and its satellites say to each other, on a socket pair that only the two have.

    primary                                  satellite
       | -- Begin, AppChanged*, RouteChanged*, Serve -->|  what it serves, then that it may
       |<-- Ready --------------------------------------|  it listens
       |                                                |
       | -- AppChanged, AppRemoved, RouteChanged,       |
       |    RouteRemoved, Mark(n) --------------------->|  a change
       |<-- Obeyed(n) ----------------------------------|  everything before Mark(n) is in force
       |                                                |
       |<-- Claim ------------------ a call needs a place in a container
       | -- Grant | Refusal ---------------------------->|  once for each claim, unless it is withdrawn
       |<-- Withdrawal ------------- nobody needs it any more; a grant on its way is given back
       | -- Recall ------------------------------------->|  somebody waits
       |<-- Return*, Recalled ------ unused places are back; the others come when their call has ended
       |<-- Return ----------------- a place was idle for a moment, or is no good
       |<-- Break ------------------ a call in a place got no answer, or must end
       | -- Settled ------------------------------------>|  it does not run any more, and why
       | -- Output ------------------------------------->|  what a container wrote
       |                                                |
       |<-- Handover + the client's connection ---------|  a request for the primary
       |<-- Report, Records, CallEnded -----------------|  about twice a second; a call that was asked about
       | -- FindCall, CancelCall, Count ---------------->|
       |<-- Answer -------------------------------------|
       |                                                |
       | -- Stop --------------------------------------->|  it serves no more, ends its calls, and its life
       | -- Hurry -------------------------------------->|  it waits for nothing

Both run the same code and trust each other, so that pickle, which multiprocessing uses between its processes too, is
format enough. Monotonic instants mean the same in all processes of a machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faas.counters import RouteMetrics
    from faas.models import App, Call, CallLog, CallResult, CallType, Route
    from faas.processes.failure import Failure
    from faas.recorder import CallView

__all__ = [
    "Answer",
    "AppChanged",
    "AppRemoved",
    "Begin",
    "Break",
    "CallEnded",
    "CancelCall",
    "Claim",
    "Count",
    "FindCall",
    "Grant",
    "Handover",
    "Hurry",
    "Mark",
    "Message",
    "Obeyed",
    "Options",
    "Output",
    "Question",
    "Ready",
    "Recall",
    "Recalled",
    "Records",
    "Refusal",
    "Report",
    "Return",
    "RouteChanged",
    "RouteRemoved",
    "Serve",
    "Settled",
    "Stop",
    "Withdrawal",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Root of all messages."""


# --- a satellite's life -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings that a satellite needs, under their names."""

    node_name: str
    log_level: str
    log_format: str
    max_header_bytes: int
    max_request_bytes: int
    max_buffered_request_bytes: int
    max_response_header_bytes: int
    max_response_bytes: int
    max_log_bytes: int
    request_read_timeout_s: float
    queue_timeout_s: float
    shutdown_grace_s: float
    record_sync_per_s: int
    recent_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin(Message):
    """The first message."""

    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve(Message):
    """All functions that there are have been told: listen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Message):
    """It listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Message):
    """Accept nothing more, end when the calls have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hurry(Message):
    """End the calls."""


# --- functions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AppChanged(Message):
    """As `CatalogListener` has it; so are the next three."""

    app: App


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRemoved(Message):
    app_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChanged(Message):
    app: App
    route: Route


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRemoved(Message):
    app_name: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Message):
    """Wants to hear when everything before it is in force."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Obeyed(Message):
    number: int


# --- places in containers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Message):
    """A call wants a place in a container of a function."""

    id: int
    """The satellite's; of the loan, too, when it is granted."""
    key: str
    app_name: str
    path: str
    deadline: float
    """Monotonic; how long it may wait in line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal(Message):
    """Claims that are needed no more."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Message):
    """A claim has its place."""

    id: int
    container_id: str
    socket_dir: str
    launch_s: tuple[float, float, float] | None
    """What pulling, creating and starting took, when a container was made for it."""
    start_log: bytes
    """What it wrote before its first call."""
    is_recalled: bool
    """Whether others wait already: the place is for a short turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal(Message):
    """There is no place for a claim."""

    id: int
    failure: Failure
    start_log: bytes
    is_stale: bool
    """The function is not what it was: the call is to look for it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall(Message):
    """Somebody else waits for places of a function: give back those that run nothing now, the others after a
    short turn."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled(Message):
    """What ran nothing was given back before this."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Return(Message):
    """A place is used no more."""

    id: int
    is_fit: bool
    """Whether its container can take another call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Break(Message):
    """A call in a place has no answer; the place is used no more."""

    id: int
    failure: Failure
    is_stopped: bool
    """Whether it was ended from outside, so that the container must die for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(Message):
    """The call of a `Break` runs no more."""

    id: int
    failure: Failure
    """What its caller is to be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(Message):
    """A container, in which the satellite has or had a place, wrote something."""

    container_id: str
    data: bytes


# --- connections and calls --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover(Message):
    """A client's connection, which comes with it, between two requests."""

    data: bytes
    """What came on it and was not answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Message):
    """What happened since the last one, and how many calls there are."""

    routes: tuple[tuple[str, str, CallType, RouteMetrics], ...]
    dropped_records: int
    waiting: int
    running: int
    completed: int
    """Since its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records(Message):
    """Sync calls that ended, for the database."""

    calls: tuple[tuple[Call, CallResult | None, CallLog | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(Message):
    """A call that was asked about before its end."""

    call_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Message):
    """Wants an `Answer` with its number."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FindCall(Question):
    """What is known of a call? Answered with a `CallView` or None."""

    call_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelCall(Question):
    """End a call; answered, when it has begun to end, with a `CallView` of it, or None."""

    call_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count(Question):
    """Answered, after a `Report`, with None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Message):
    number: int
    view: CallView | None
