"""Try again: the one place where a request to Tardis is repeated, and the only user of tenacity.

A failed attempt is followed by a pause that doubles, with jitter. A wait that the source asked for is obeyed and is no
failure, however long: a worker that left instead would have used up its shard's retries long before a quota is back. A
refused key is asked again until the refusal is believed. All waits end at once on a stop.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from runner.errors import DrainedError, TransientError
from runner.tardis.answers import RefusedError, ToldToWait
from runner.tardis.limits import Limits

T = TypeVar("T")

# The official clients take a longer wait for a used-up quota.
_QUOTA_S = 300.0
# A shorter wait is told to nobody: it is over before anyone looks.
_LONG_S = 60.0

log = logging.getLogger(__name__)


def _wait(stop: threading.Event, seconds: float) -> None:
    """Wait; DrainedError as soon as the process is told to stop."""
    if stop.wait(seconds):
        raise DrainedError("told to stop while waiting to try Tardis again")


@dataclass
class Tries:
    """One request's attempts; `attempts` counts them without waits told by the source and refusals of the key.

    `what` is asked for, as log lines name it.
    `stuck(since)`: whether nothing at all came through for too long since that moment of the monotonic clock.
    `on_parked` is told the seconds of every wait that the source asks for, if they are many.
    """

    what: str
    limits: Limits
    stop: threading.Event
    stuck: Callable[[float], bool]
    on_parked: Callable[[float], None] | None = None
    attempts: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _refusals: int = field(default=0, init=False)
    _told_since: float | None = field(default=None, init=False)
    _refused_since: float | None = field(default=None, init=False)
    _over: bool = field(default=False, init=False)
    _pause_s: float = field(default=0.0, init=False)

    def run(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns; its last TransientError once there is no use in trying again."""
        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            after=self._judge,
            wait=lambda _: self._pause_s,
            stop=lambda _: self._over,
            sleep=lambda seconds: _wait(self.stop, seconds),
            reraise=True,
        )
        result = retrying(attempt)
        self.attempts = self._failures + 1
        return result

    def _judge(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        now = time.monotonic()
        if isinstance(error, ToldToWait):
            self._told(error, now)
        elif isinstance(error, RefusedError):
            self._refused(now)
        else:
            self._refused_since, self._refusals = None, 0
            self._failures += 1
            self.attempts = self._failures
            self._over = self._failures >= self.limits.attempts
            self._pause_s = self._backoff_s(self._failures)

    def _told(self, told: ToldToWait, now: float) -> None:
        if self._told_since is None:
            self._told_since = now
        self._over = self.stuck(self._told_since)
        self._pause_s = told.wait_s + random.uniform(0.0, self.limits.backoff_s)  # noqa: S311  spreads, guards nothing
        left_s = self._told_since + self.limits.lock_limit_s - now
        if told.locked and left_s > 0:
            # the lock may outlast our patience: look once more when that ends
            self._pause_s = min(self._pause_s, left_s)
        if not self._over:
            quota = ", a quota is used up" if told.wait_s > _QUOTA_S and not told.locked else ""
            level = logging.WARNING if told.wait_s > _QUOTA_S else logging.INFO
            log.log(level, "%s: %s: parked%s; it goes on by itself", self.what, told, quota)
            if self.on_parked is not None and self._pause_s >= _LONG_S:
                self.on_parked(self._pause_s)

    def _refused(self, now: float) -> None:
        if self._refused_since is None:
            self._refused_since = now
        self._refusals += 1
        left_s = self._refused_since + self.limits.refusal_s - now
        self._over = left_s <= 0
        self._pause_s = min(self._backoff_s(self._refusals), max(left_s, 0.0))

    def _backoff_s(self, failures: int) -> float:
        longest_s = min(self.limits.backoff_max_s, self.limits.backoff_s * 2.0 ** min(failures - 1, 30))
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311  spreads retries, guards nothing
