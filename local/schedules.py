"""EventBridge schedules: `rate(5 minutes)` and `cron(0 12 ? * MON-FRI *)`, in UTC."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_UNITS = {"minute": 60, "hour": 3600, "day": 86_400}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_HORIZON = timedelta(days=366 * 5)


def following(expression: str, after: datetime) -> datetime:
    """The first time after `after` (UTC) at which a schedule is due. Raises ValueError for what is no schedule."""
    rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression)
    if rate and int(rate[1]) > 0:
        return after + timedelta(seconds=int(rate[1]) * _UNITS[rate[2]])
    cron = re.fullmatch(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)", expression)
    if cron is None:
        raise ValueError(f"{expression!r} is neither rate(…) nor cron(…)")
    minutes = _values(cron[1], 0, 59)
    hours = _values(cron[2], 0, 23)
    days = _values(cron[3], 1, 31)
    months = _values(cron[4], 1, 12, _MONTHS)
    weekdays = _values(cron[5], 1, 7, _DAYS)
    years = _values(cron[6], 1970, 2199)
    moment = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while moment < after + _HORIZON:
        weekday = moment.isoweekday() % 7 + 1
        fits = moment.year in years and moment.month in months and moment.day in days and weekday in weekdays
        if not fits:
            moment = moment.replace(hour=0, minute=0) + timedelta(days=1)
        elif moment.hour not in hours:
            moment = moment.replace(minute=0) + timedelta(hours=1)
        elif moment.minute not in minutes:
            moment += timedelta(minutes=1)
        else:
            return moment
    raise ValueError(f"{expression!r} is never due")


def _values(field: str, low: int, high: int, names: tuple[str, ...] = ()) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span in {"*", "?"}:
            first, last = low, high
        else:
            begin, _, end = span.partition("-")
            first = _number(begin, low, names)
            last = _number(end, low, names) if end else (high if step else first)
        if not low <= first <= last <= high:
            raise ValueError(f"{field!r} is out of {low} to {high}")
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def _number(text: str, low: int, names: tuple[str, ...]) -> int:
    return names.index(text.upper()) + low if text.upper() in names else int(text)
