"""When a cron expression is due in a time zone. Pure; times go in and come out as UTC.

Like Debian's cron: what is due at a fixed time that the clocks skip is due when they have skipped it, and what is due
at a time that comes twice is due the first time; `*` and `*/n` in minutes or hours follow the time that really passes.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_FIELDS = 5
_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)
_YEAR = 366
"""Days; nearly every zone changes its offset within them, or never."""
_WIDEST = timedelta(hours=3)
"""More than clocks are ever put back by."""
_END = timedelta(days=_YEAR * 50)
"""What is not due in so long never is: as the library has it."""


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
    if _passes(expression):
        moments = _matches_after(expression, zone, after)
    else:
        moments = _utc(CronSim(expression, after.astimezone(zone)), lambda moment: moment > after)
    return list(islice(moments, count))


def latest(expression: str, zone: ZoneInfo, now: datetime) -> datetime | None:
    """The newest time it was due, `now` included; None: it never was."""
    if _passes(expression):
        return next(_back(expression, zone, now), None)
    # In the hour that comes twice, what was due in its first half is ahead on the wall clock: from later backwards.
    start = (now + _WIDEST).astimezone(zone)
    return next(_utc(_reversed(expression, start), lambda moment: moment <= now), None)


def _passes(expression: str) -> bool:
    """Whether it follows the time that passes, by the library's own rule."""
    minute, hour = expression.split()[:2]
    return minute.startswith("*") or hour.startswith("*")


def _matches_after(expression: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yield the times that match after a time, one UTC offset after another.

    From hour to hour, the library leaps over what is due behind a change of less than an hour (Lord Howe Island).
    """
    last = after + _END
    offset = _offset(zone, after)
    while after < last:
        until = _change(zone, after, offset, _DAY)
        for one in CronSim(expression, after.astimezone(timezone(offset))):
            if one >= until:
                break
            yield one.astimezone(UTC)
        else:
            return
        after, offset = until - _SECOND, _offset(zone, until)


def _back(expression: str, zone: ZoneInfo, now: datetime) -> Iterator[datetime]:
    """The same backwards, `now` included."""
    first = now - _END
    offset = _offset(zone, now)
    while now > first:
        before = _change(zone, now, offset, -_DAY)
        for one in _reversed(expression, now.astimezone(timezone(offset))):
            if one <= before:
                break
            yield one.astimezone(UTC)
        else:
            return
        now, offset = before, _offset(zone, before)


def _change(zone: ZoneInfo, moment: datetime, offset: timedelta, step: timedelta) -> datetime:
    """In the direction of `step` the next whole second with another offset, or one a year away."""
    same, other = moment.replace(microsecond=0), moment
    for _ in range(_YEAR):
        other = same + step
        if _offset(zone, other) != offset:
            break
        same = other
    while abs(other - same) > _SECOND and _offset(zone, other) != offset:
        middle = same + timedelta(seconds=(other - same) // _SECOND // 2)
        same, other = (middle, other) if _offset(zone, middle) == offset else (same, middle)
    return other


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _reversed(expression: str, now: datetime) -> CronSim:
    # One microsecond more: reading backwards, the library begins before the moment it is given.
    return CronSim(expression, now.replace(microsecond=1), reverse=True)


def _utc(moments: Iterator[datetime], fits: Callable[[datetime], bool]) -> Iterator[datetime]:
    """Where the clocks are put back, the library's neighbours of a moment may lie on its wrong side."""
    return (moment for moment in (one.astimezone(UTC) for one in moments) if fits(moment))
