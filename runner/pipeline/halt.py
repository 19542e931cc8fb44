"""Whether a controller is to stop: its process was told to, or somebody cancelled its pass."""

from __future__ import annotations

import time
from collections.abc import Callable

from runner import runs
from runner.errors import DrainedError
from runner.store import Store

_LOOK_S = 1.0


class Halt:
    """What a controller asks whether it may go on. `is_cancelled` is what was found when it was last asked."""

    def __init__(self, store: Store, run: str, stop: Callable[[], bool]) -> None:
        self._store, self._run, self._stop = store, run, stop
        self._asked = float("-inf")
        self.is_cancelled = False

    def __call__(self) -> bool:
        """Tell whether to stop. The store is asked once a second."""
        if time.monotonic() - self._asked >= _LOOK_S:
            self._asked = time.monotonic()
            self.is_cancelled = runs.cancelled(self._store, self._run)
        return self.is_cancelled or self._stop()

    def check(self) -> None:
        """Raise DrainedError if it is to stop as of now: what is begun after the cancelling would be one too many."""
        self._asked = float("-inf")
        if self():
            raise self.drained()

    def drained(self, more: str = "") -> DrainedError:
        """Return the error that ends the controller, with what else is to be said."""
        return DrainedError(f"pipeline {self._run}: told to stop{more}")
