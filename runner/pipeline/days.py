"""Which days a pipeline is asked for. Days are UTC, both ends included."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from runner.errors import SpecError
from runner.spec.model import MAX_DAYS
from runner.spec.values import day as read_day
from runner.spec.values import shown

AUTO = "auto"


def days_of(asked: str, now: Callable[[], datetime], lookback_days: int) -> tuple[date, ...]:
    """Return the days of `auto`, a day or a range `D..D`, oldest first.

    `auto` is the day before that of `now()`, and as many days before it as make `lookback_days` together.

    >>> morning = datetime(2024, 8, 10, 8, tzinfo=UTC)
    >>> [str(day) for day in days_of("auto", lambda: morning, 2)]
    ['2024-08-08', '2024-08-09']
    >>> [str(day) for day in days_of("2024-08-08..2024-08-09", lambda: morning, 14)]
    ['2024-08-08', '2024-08-09']
    """
    if asked == AUTO:
        last = now().astimezone(UTC).date() - timedelta(days=1)
        return _range(last - timedelta(days=lookback_days - 1), last)
    first, separator, last_text = asked.partition("..")
    begin = _day(first)
    end = _day(last_text) if separator else begin
    if end < begin:
        raise SpecError(f"flag --day {shown(asked)}: ends before it begins; the end is inclusive")
    if (end - begin).days >= MAX_DAYS:
        raise SpecError(f"flag --day {shown(asked)}: is over {MAX_DAYS} days; split it")
    return _range(begin, end)


def capped(now: datetime, exported_until: date | None, lookback_days: int) -> datetime:
    """Return the time that `auto` goes by: that of the newest export where the source lags by more than is looked at.

    `exported_until` is the first day that is not exported, None where nobody knows. A source so far behind is not late:
    its days end there, and those after them would be waited for in vain.

    >>> now = datetime(2024, 8, 30, 8, tzinfo=UTC)
    >>> [str(capped(now, date(2024, 8, day), 14).date()) for day in (29, 16, 15)]
    ['2024-08-30', '2024-08-30', '2024-08-15']
    """
    today = now.astimezone(UTC).date()
    if exported_until is None or today - exported_until <= timedelta(days=lookback_days):
        return now
    return datetime(exported_until.year, exported_until.month, exported_until.day, tzinfo=UTC)


def _range(first: date, last: date) -> tuple[date, ...]:
    return tuple(first + timedelta(days=n) for n in range((last - first).days + 1))


def _day(text: str) -> date:
    try:
        return read_day(text)
    except ValueError as e:
        raise SpecError(f"flag --day {shown(text)}: {e}; or give auto, or a range as 2024-08-08..2024-08-10") from e
