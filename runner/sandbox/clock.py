"""The sandbox's clock: it can be set, and it can run faster than the wall."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """UTC time that starts at the wall's, can be set, and advances `factor` seconds in each real one."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self._mutex = threading.Lock()
        self._base = datetime.now(UTC)
        self._mark_s = time.monotonic()
        self._is_set = False

    @property
    def is_set(self) -> bool:
        """Whether somebody has set the clock: only then does it decide what is exported."""
        return self._is_set

    def now(self) -> datetime:
        """Return the sandbox's time."""
        with self._mutex:
            return self._base + timedelta(seconds=(time.monotonic() - self._mark_s) * self.factor)

    def set(self, now: datetime) -> None:
        """Continue from `now` (aware)."""
        with self._mutex:
            self._base, self._mark_s, self._is_set = now.astimezone(UTC), time.monotonic(), True

    def reset(self) -> None:
        """Return to the wall's time."""
        with self._mutex:
            self._base, self._mark_s, self._is_set = datetime.now(UTC), time.monotonic(), False
