"""The wire's models of schedules and their way to the domain and back."""

import base64
import binascii
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from faas.errors import ValidationError
from faas.schedule import MissedPolicy, OverlapPolicy, Schedule
from faas.schedules.schedules import SchedulePatch
from faas.schedules.timetable import upcoming

__all__ = ["ScheduleAnswer", "ScheduleEnvelope", "ScheduleRequest", "ScheduleView", "SchedulesAnswer"]

SHOWN_FIRINGS = 5


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class CallTemplate(_Request):
    """What each firing's call gets; absent: as it is, or the default."""

    method: str | None = Field(None, description="Default `POST`.")
    headers: dict[str, str] | None = Field(None, description="All of them: a PATCH replaces those there were.")
    body: str | None = Field(None, description="As text, sent as UTF-8.")
    body_base64: str | None = Field(None, description="Instead of `body`, for bytes that are no text.")

    def content(self) -> bytes | None:
        """The body; None when none was given."""
        if self.body_base64 is None:
            return self.body.encode("utf-8", "replace") if self.body is not None else None
        if self.body is not None:
            raise ValidationError(["request: either `body` or `body_base64`"])
        try:
            return base64.b64decode(self.body_base64, validate=True)
        except (binascii.Error, ValueError):
            raise ValidationError(["request.body_base64: not Base64"]) from None

    def header_pairs(self) -> tuple[tuple[bytes, bytes], ...] | None:
        """The headers with lower-case names; None when none were given."""
        if self.headers is None:
            return None
        try:
            return tuple(
                (name.lower().encode("latin-1"), value.strip().encode("latin-1"))
                for name, value in self.headers.items()
            )
        except UnicodeEncodeError:
            raise ValidationError(["request.headers: only Latin-1 can be sent"]) from None


class ScheduleRequest(_Request):
    """A schedule as a client writes it; absent and `null` mean the default, or "as it is" in a PATCH."""

    name: str | None = Field(None, description="1 to 64 letters, digits, `_` and `-`. Can't be changed.")
    path: str | None = Field(None, description="The route that is called.")
    cron: str | None = Field(
        None, description="When: `minute hour day month weekday`, or `@hourly` and its like. Instead of `interval_s`."
    )
    interval_s: int | None = Field(None, description="When: every so many seconds, the first time after so many.")
    timezone: str | None = Field(None, description="IANA name of the zone in which `cron` is meant. Default `UTC`.")
    request: CallTemplate | None = None
    priority: int | None = Field(None, description="Of the calls: 0 (default) to 2, which are first.")
    enabled: bool | None = Field(None, description="Default true.")
    missed: Literal["skip", "once"] | None = Field(
        None, description="Firings that nobody could make in time: left out (default), or made up for by one call."
    )
    overlap: Literal["allow", "skip"] | None = Field(
        None, description="A firing while the last one's call has not ended: made (default), or left out."
    )

    def patch(self) -> SchedulePatch:
        """To the domain; raises `ValidationError`."""
        template = self.request
        return SchedulePatch(
            path=self.path,
            cron=self.cron,
            interval_s=self.interval_s,
            timezone=self.timezone,
            method=template.method if template else None,
            headers=template.header_pairs() if template else None,
            body=template.content() if template else None,
            priority=self.priority,
            is_enabled=self.enabled,
            missed=MissedPolicy(self.missed) if self.missed else None,
            overlap=OverlapPolicy(self.overlap) if self.overlap else None,
        )


class ScheduleEnvelope(_Request):
    """The body of POST and PATCH."""

    schedule: ScheduleRequest | None = None


class CallTemplateView(_Answer):
    """What each firing's call gets."""

    method: str
    headers: dict[str, str]
    body: str | None = Field(description="`null` when it is no UTF-8 text.")
    body_base64: str | None = Field(description="The body, when it is no UTF-8 text.")


class ScheduleView(_Answer):
    """A schedule as it is shown."""

    app_name: str
    name: str
    path: str
    cron: str | None
    interval_s: int | None
    timezone: str
    request: CallTemplateView
    priority: int
    enabled: bool
    missed: MissedPolicy
    overlap: OverlapPolicy
    next: list[datetime] = Field(description=f"Its next {SHOWN_FIRINGS} firings; none while it is disabled.")
    last_at: datetime | None = Field(description="When the latest firing that was made was due.")
    last_call_id: str | None
    created_at: datetime | None
    updated_at: datetime | None

    @classmethod
    def of(cls, schedule: Schedule) -> "ScheduleView":
        """From the domain."""
        try:
            text, exact = schedule.body.decode(), None
        except UnicodeDecodeError:
            text, exact = None, base64.b64encode(schedule.body).decode()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in schedule.headers}
        return cls(
            app_name=schedule.app_name,
            name=schedule.name,
            path=schedule.path,
            cron=schedule.cron or None,
            interval_s=schedule.interval_s or None,
            timezone=schedule.timezone,
            request=CallTemplateView(method=schedule.method, headers=headers, body=text, body_base64=exact),
            priority=schedule.priority,
            enabled=schedule.is_enabled,
            missed=schedule.missed,
            overlap=schedule.overlap,
            next=_shown_firings(schedule),
            last_at=schedule.last_at,
            last_call_id=schedule.last_call_id,
            created_at=schedule.created_at,
            updated_at=schedule.updated_at,
        )


class ScheduleAnswer(_Answer):
    """One schedule."""

    message: str
    schedule: ScheduleView


class SchedulesAnswer(_Answer):
    """An app's schedules."""

    message: str
    schedules: list[ScheduleView]


def _shown_firings(schedule: Schedule) -> list[datetime]:
    try:
        return upcoming(schedule, SHOWN_FIRINGS)
    except KeyError:
        # A node with newer time zones made it; this one can tell no more than what is stored.
        return [schedule.next_at] if schedule.next_at is not None else []
