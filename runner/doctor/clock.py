"""How far this machine's clock is off, by the clocks of those it talks to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from runner.doctor.check import Check, fail, ok, unknown, warn

NAME = "clock"
MEND = "timedatectl set-ntp true"
_WARN_S = 10.0
# A worker writes every ten seconds, by the store's clock; one that seems silent for a minute is taken for dead.
_FAIL_S = 60.0
_HEADER = timedelta(seconds=1)
"""What a Date header leaves out."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How many seconds this machine's clock is ahead of another's, at least (behind: negative)."""

    of: str
    ahead_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """When something was asked, by this machine's clock (UTC)."""

    began: datetime

    @classmethod
    def now(cls) -> Asked:
        """Return that it is asked now."""
        return cls(datetime.fromtimestamp(time.time(), UTC))

    def told(self, of: str, then: datetime, slack: timedelta = timedelta(0)) -> Reading:
        """Return the reading of an answer that came just now, made at [then, then + slack] by the other's clock."""
        ended = datetime.fromtimestamp(time.time(), UTC)
        least, most = (self.began - then - slack).total_seconds(), (ended - then).total_seconds()
        return Reading(of, least if least > 0 else min(most, 0.0))

    def header(self, of: str, date: str) -> Reading | None:
        """Return the reading of an answer's Date header, None where there is none."""
        try:
            then = parsedate_to_datetime(date)
        except (TypeError, ValueError):
            return None
        return self.told(of, then if then.tzinfo else then.replace(tzinfo=UTC), _HEADER)


def judged(readings: list[Reading]) -> Check:
    """Return the check of this machine's clock."""
    if not readings:
        return unknown(NAME, "nobody told the time", "timedatectl status")
    worst = max(readings, key=lambda reading: abs(reading.ahead_s))
    if abs(worst.ahead_s) < _WARN_S:
        return ok(NAME, f"within {_WARN_S:g} s of {', '.join(reading.of for reading in readings)}")
    side = "ahead of" if worst.ahead_s > 0 else "behind"
    finding = f"{abs(worst.ahead_s):.0f} s {side} {worst.of}"
    if abs(worst.ahead_s) < _FAIL_S:
        return warn(NAME, finding, MEND)
    return fail(NAME, f"{finding}: workers that live seem dead, and signed requests are refused", MEND)
