"""Schedules: routes that are called by the clock, by cron expressions or at intervals.

cron        when an expression is due, in a time zone (pure)
timetable   when a schedule is due (pure)
schedules   the rules by which schedules are made and changed
scheduler   fires what is due, each firing once across nodes
"""

__all__: list[str] = []
