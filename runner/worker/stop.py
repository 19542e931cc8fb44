"""Being told to stop: signals and a lost parent set one event, with the reason."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

DRAIN_S = 10.0
"""From the word to the exit: GKE Spot gives user pods 15 s."""


class Stop:
    """Why and when this worker was told to stop.

    SIGTERM is the machine's word (a preemption), SIGINT the user's; a parent that is gone counts as the user's.
    """

    def __init__(self, parent: int = 0) -> None:
        self.event = threading.Event()
        self.reason = ""
        self.preempted = False
        self._parent = parent
        self._since = 0.0

    def install(self) -> None:
        """Take SIGTERM and SIGINT from now on; call from the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def now(self, reason: str, *, preempted: bool = False) -> None:
        """Stop; the first reason stands."""
        if not self.event.is_set():
            self.reason, self.preempted, self._since = reason, preempted, time.monotonic()
            self.event.set()

    def look_for_parent(self) -> None:
        """Stop when the process that started this one is gone."""
        if self._parent and os.getppid() != self._parent:
            self.now("the process that started this worker is gone")

    @property
    def overdue(self) -> bool:
        """Tell whether the time to drain is over."""
        return self.event.is_set() and time.monotonic() - self._since > DRAIN_S

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # In a thread of its own: the one interrupted may hold the event's lock at this instant.
        word = {"reason": signal.Signals(number).name, "preempted": number == signal.SIGTERM}
        threading.Thread(target=self.now, kwargs=word, daemon=True).start()
