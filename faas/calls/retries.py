"""Whether a call whose attempt has failed runs again: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.models import CallStatus, Reason
from faas.retry_policy import RETRYABLE_REASONS

if TYPE_CHECKING:
    from datetime import datetime

    from faas.models import Call, ResultInfo
    from faas.retry_policy import RetryPolicy

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from the end of an attempt."""

    ended: Call
    """The call when it does not run again."""
    waiting: Call | None = None
    """The call when it does, until then."""
    retry_after_s: float | None = None
    """Seconds from now until it does."""


def judge(ended: Call, policy: RetryPolicy | None, *, now: datetime, draw: float) -> Verdict:
    """What becomes of a call that ended like this; `draw` is 0 to 1, at random.

    A failure that the policy names is retried as long as retries are left; then the call is a dead letter.
    """
    if policy is None or ended.result is None or not _is_named(ended, ended.result, policy):
        return Verdict(ended=ended)
    if ended.status is CallStatus.SUCCESS:
        text = f"the function answered with status {ended.result.status_code}, which its route's `retries` name"
        ended = replace(ended, status=CallStatus.ERROR, reason=Reason.BAD_EXIT, error=text)
    if ended.retries >= policy.max_retries:
        return Verdict(ended=replace(ended, is_dead_letter=True))
    delay_s = policy.delay_after(ended.retries, draw)
    waiting = replace(
        ended,
        status=CallStatus.DELAYED if delay_s else CallStatus.QUEUED,
        not_before=now + timedelta(seconds=delay_s) if delay_s else None,
        retries=ended.retries + 1,
        completed_at=None,
        reason=None,
        error="",
        result=None,
    )
    return Verdict(ended=ended, waiting=waiting, retry_after_s=delay_s)


def _is_named(ended: Call, result: ResultInfo, policy: RetryPolicy) -> bool:
    reason = ended.reason.value if ended.reason is not None else None
    if reason is not None and reason not in RETRYABLE_REASONS:
        return False  # whatever its status: the caller took it back, or wants it no more
    return reason in policy.on or result.status_code in policy.on
