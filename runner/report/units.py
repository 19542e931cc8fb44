"""Bytes, seconds and ratios as people read them."""

from __future__ import annotations

_STEP = 1000
_BYTES = ("B", "kB", "MB", "GB", "TB", "PB")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_ONE_DIGIT = 10
# Before this much is done, the rate says more about starting than about going on.
_ETA_FROM = 0.05


def size(count: float) -> str:
    """Return bytes with a decimal unit.

    >>> size(0), size(999), size(1500), size(61_200_000), size(999_999)
    ('0 B', '999 B', '1.5 kB', '61 MB', '1.0 MB')
    """
    value = float(count)
    for unit in _BYTES:
        if value < _STEP - 0.5 or unit == _BYTES[-1]:
            break
        value /= _STEP
    return f"{value:.1f} {unit}" if unit != "B" and value < _ONE_DIGIT else f"{value:.0f} {unit}"


def duration(seconds: float) -> str:
    """Return seconds as the two largest units.

    >>> duration(0.4), duration(9), duration(75), duration(3_700), duration(90_000)
    ('0 s', '9 s', '1m15s', '1h01m', '1d01h')
    """
    whole = max(0, round(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m{whole % _MINUTE_S:02d}s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}h{whole % _HOUR_S // _MINUTE_S:02d}m"
    return f"{whole // _DAY_S}d{whole % _DAY_S // _HOUR_S:02d}h"


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    >>> count(1, "task"), count(1200, "task"), count(2, "day's body", "bodies")
    ('1 task', '1,200 tasks', '2 bodies')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def percent(part: float, whole: float) -> int:
    """Return whole percent, rounded down so that 100 means all; all of nothing is 100.

    >>> percent(999, 1000), percent(3, 3), percent(0, 0)
    (99, 100, 100)
    """
    return int(100 * part / whole) if whole else 100


def eta_s(done: float, total: float, elapsed_s: float) -> float | None:
    """Return the seconds left at the mean rate so far; None before 5 % are done.

    >>> eta_s(25, 100, 10), eta_s(4, 100, 10), eta_s(100, 100, 10)
    (30.0, None, 0.0)
    """
    if total <= 0 or done < _ETA_FROM * total:
        return None
    return max(0.0, (total - done) * elapsed_s / done)
