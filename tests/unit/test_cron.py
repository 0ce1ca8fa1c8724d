"""When a schedule is due: what daylight saving time does to it, forwards and backwards."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octollm.topology.cron import check, following, latest

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clocks move by half an hour
ZONES = st.sampled_from([BERLIN, NEW_YORK, ZoneInfo("UTC"), LORD_HOWE])
DAYS = st.sampled_from(
    ["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-04", "2026-10-25", "2026-11-01", "2026-06-30"]
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def after(expression: str, zone: ZoneInfo, start: str, count: int) -> list[str]:
    return [f"{moment:%m-%d %H:%M}" for moment in following(expression, zone, utc(start), count)]


def test_a_fixed_time_keeps_to_the_wall_clock_over_the_year():
    assert after("30 7 * * MON-FRI", BERLIN, "2026-03-27 12:00", 2) == ["03-30 05:30", "03-31 05:30"]
    assert after("30 7 * * MON-FRI", BERLIN, "2026-01-01 12:00", 1) == ["01-02 06:30"]


def test_a_time_that_the_clocks_skip_is_due_when_they_have_skipped_it():
    # 2026-03-29, 02:00 to 03:00 in Berlin (01:00 UTC); 2026-03-08 in New York (07:00 UTC).
    assert after("30 2 * * *", BERLIN, "2026-03-27 12:00", 3) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
    assert after("30 2 * * *", NEW_YORK, "2026-03-07 12:00", 2) == ["03-08 07:00", "03-09 06:30"]


def test_a_time_that_comes_twice_is_due_once():
    # 2026-10-25, 03:00 back to 02:00 in Berlin (01:00 UTC).
    assert after("30 2 * * *", BERLIN, "2026-10-24 12:00", 2) == ["10-25 00:30", "10-26 01:30"]
    # Also asked between the two.
    assert after("30 2 * * *", BERLIN, "2026-10-25 00:45", 1) == ["10-26 01:30"]
    assert after("30 2 * * *", BERLIN, "2026-10-25 01:10", 1) == ["10-26 01:30"]


def test_what_is_due_all_the_time_follows_the_time_that_passes():
    assert after("*/30 * * * *", BERLIN, "2026-10-24 23:45", 5) == [
        "10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00",
    ]  # fmt: skip
    assert after("*/30 * * * *", BERLIN, "2026-03-29 00:15", 3) == ["03-29 00:30", "03-29 01:00", "03-29 01:30"]


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        ("2026-06-01 00:30", "2026-06-01 00:30"),
        ("2026-06-01 00:29:59", "2026-05-31 00:30"),
        ("2026-03-29 00:59:59", "2026-03-28 01:30"),
        ("2026-03-29 01:00", "2026-03-29 01:00"),
        ("2026-03-29 12:00", "2026-03-29 01:00"),
        ("2026-10-25 00:30", "2026-10-25 00:30"),
        ("2026-10-25 01:10", "2026-10-25 00:30"),
        ("2026-10-25 01:45", "2026-10-25 00:30"),
        ("2026-10-26 01:29", "2026-10-25 00:30"),
    ],
)
def test_the_newest_time_it_was_due(now, newest):
    assert latest("30 2 * * *", BERLIN, utc(now)) == utc(newest)


@given(
    st.sampled_from(["30 2 * * *", "0 3 * * *", "*/20 * * * *", "0 */5 * * *", "5 2 * * SUN", "0 0 L * *"]),
    ZONES,
    DAYS,
    st.integers(0, 36 * 60),
)
@example("0 */5 * * *", LORD_HOWE, "2026-04-05", 1951)
@example("30 2 * * *", BERLIN, "2026-10-25", 1351)
@settings(deadline=None)
def test_looks_every_few_minutes_see_each_due_time_once(expression, zone, day, before):
    """As the orchestrator looks: what counts is a newest time that is later than the one before."""
    start = utc(day) + timedelta(days=1, minutes=-before, seconds=7)
    seen = latest(expression, zone, start)
    fired = []
    now = start
    for minutes in range(1, 24 * 60, 7):
        now = start + timedelta(minutes=minutes)
        newest = latest(expression, zone, now)
        assert newest is not None
        assert newest <= now
        if seen is None or newest > seen:
            fired.append(newest)
            seen = newest
    expected = [one for one in following(expression, zone, start, 200) if one <= now]
    assert fired == expected


@given(
    st.sampled_from(
        [
            ("*/20 * * * *", range(0, 60, 20), range(24)),
            ("0 */5 * * *", range(1), range(0, 24, 5)),
            ("45 */2 * * *", range(45, 46), range(0, 24, 2)),
            ("*/7 1-3 * * *", range(0, 60, 7), range(1, 4)),
        ]
    ),
    ZONES,
    DAYS,
    st.integers(0, 36 * 60),
)
@settings(deadline=None)
def test_what_follows_the_time_that_passes_is_due_whenever_the_clocks_read_so(what, zone, day, before):
    expression, minutes, hours = what
    start = utc(day) + timedelta(days=1, minutes=-before)
    moments = [start + timedelta(minutes=number) for number in range(1, 36 * 60)]
    read = [(moment, moment.astimezone(zone)) for moment in moments]
    due = [moment for moment, local in read if local.minute in minutes and local.hour in hours]
    assert following(expression, zone, start, len(due)) == due
    assert latest(expression, zone, moments[-1]) == due[-1]


def test_what_is_due_once_in_years_is_found_in_both_directions():
    assert following("*/30 0 29 2 *", BERLIN, utc("2026-06-01"), 2) == [
        utc("2028-02-28 23:00"),
        utc("2028-02-28 23:30"),
    ]
    assert latest("*/30 0 29 2 *", BERLIN, utc("2026-06-01")) == utc("2024-02-28 23:30")


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("0 * * * * *", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "Bad minute"),
        ("0 24 * * *", "Bad hour"),
        ("0 0 31 2 *", "Bad day-of-month"),
        ("0 0 * 13 *", "Bad month"),
        ("0 0 * * MON#6", "Bad day-of-week"),
        ("5-1 * * * *", "Bad minute"),
        ("*/0 * * * *", "Bad minute"),
    ],
)
def test_a_wrong_expression_is_refused(expression, why):
    with pytest.raises(ValueError, match=why):
        check(expression)


@given(st.lists(st.text("0123456789*/-,#LWMONJANlw ²", max_size=6), min_size=5, max_size=5).map(" ".join))
def test_no_expression_breaks_anything(expression):
    try:
        check(expression)
    except ValueError:
        return
    assert following(expression, BERLIN, utc("2026-01-01 00:00"))
