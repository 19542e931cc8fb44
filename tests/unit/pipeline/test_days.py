"""Which days are meant by what stands after --day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from runner.errors import SpecError
from runner.pipeline import capped, days_of

MORNING = datetime(2024, 8, 10, 8, tzinfo=UTC)


def days(asked: str, now: datetime = MORNING, lookback: int = 14) -> list[str]:
    return [str(day) for day in days_of(asked, lambda: now, lookback)]


def test_auto_is_the_day_before_and_those_before_it_oldest_first() -> None:
    assert days("auto", lookback=1) == ["2024-08-09"]
    assert days("auto", lookback=3) == ["2024-08-07", "2024-08-08", "2024-08-09"]


def test_the_day_is_that_of_utc_whatever_the_zone_of_the_clock() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert days("auto", datetime(2024, 8, 10, 8, tzinfo=tokyo), 1) == ["2024-08-08"], "there it is still the ninth"


def test_a_day_and_a_range_are_taken_as_they_stand_and_nobody_looks_at_a_clock() -> None:
    def never() -> datetime:
        raise AssertionError

    assert days_of("2024-02-29", never, 14) == (date(2024, 2, 29),)
    assert days_of("2024-02-28..2024-03-01", never, 14) == (date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("yesterday", "YYYY-MM-DD"),
        ("2024-02-30", "2024-02-30"),
        ("2024-08-09..", "YYYY-MM-DD"),
        ("2024-08-09..2024-08-08", "ends before it begins"),
        ("2010-01-01..2024-08-08", "split it"),
    ],
)
def test_what_is_no_day_is_refused_with_its_name(asked: str, why: str) -> None:
    with pytest.raises(SpecError, match="flag --day") as refused:
        days(asked)
    assert why in str(refused.value)


def test_a_source_that_ended_long_ago_is_gone_by_its_last_days_and_a_late_one_is_waited_for() -> None:
    assert capped(MORNING, date(2024, 8, 10), 2) == MORNING, "yesterday is there"
    assert capped(MORNING, date(2024, 8, 8), 2) == MORNING, "two days late"
    assert capped(MORNING, date(2024, 8, 7), 2) == datetime(2024, 8, 7, tzinfo=UTC)
    assert capped(MORNING, date(2024, 8, 11), 2) == MORNING, "never later than the clock says"
    assert capped(MORNING, None, 2) == MORNING, "the source cannot say"
