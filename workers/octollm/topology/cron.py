"""When a cron expression is due in a time zone. Pure; times go in and come out as UTC.

Like Debian's cron: what is due at a fixed time that the clocks skip is due when they have skipped it, and what is due
at a time that comes twice is due the first time; `*` and `*/n` in minutes or hours follow the time that really passes.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = 5


def check(expression: str) -> str:
    """The expression; raises ValueError that says what is wrong with it."""
    if len(expression.split()) != _FIELDS:
        raise ValueError("must have five fields: minute, hour, day of month, month, day of week, like 30 2 * * MON")
    try:
        if next(CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC)), None) is None:
            raise ValueError("is never due")
    except CronSimError as error:
        raise ValueError(str(error)) from error
    return expression


def following(expression: str, zone: ZoneInfo, after: datetime, count: int = 1) -> list[datetime]:
    """The next `count` times it is due, or fewer where it is not."""
    return list(islice(_utc(CronSim(expression, after.astimezone(zone)), lambda moment: moment > after), count))


def latest(expression: str, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The newest time it was due, `now` included; None: it never was."""
    # One microsecond more: reading backwards, the library begins before the moment it is given.
    start = now.astimezone(zone).replace(microsecond=1)
    return next(_utc(CronSim(expression, start, reverse=True), lambda moment: moment <= now), None)


def _utc(moments: Iterator[datetime], fits: Callable[[datetime], bool]) -> Iterator[datetime]:
    """Where the clocks are put back, the library's neighbours of a moment may lie on its wrong side."""
    return (moment for moment in (one.astimezone(UTC) for one in moments) if fits(moment))
