"""Hands out a worker's tasks, each only after a durable word that names it.

So whoever finds the word of a worker that died knows what may have killed it. Names are batched, because a store takes
about one write a second of one object: the faster tasks go by, the more are named at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from runner.task import Task

_MOST_NAMED = 64
_FAST_S = 1.0


class Feed:
    """A queue of tasks. `announce` gets the ids of tasks begun or about to begin, and returns when they are durable.

    At first `least` tasks are named at a time, more (up to `most`) while they go by in less than a second.
    """

    def __init__(
        self, tasks: Sequence[Task], announce: Callable[[tuple[str, ...]], None], *, least: int, most: int = _MOST_NAMED
    ) -> None:
        self._waiting = deque(tasks)
        self._named: deque[Task] = deque()
        self._begun: dict[str, Task] = {}
        self._announce = announce
        self._least, self._most = least, most
        self._batch = least
        self._announced = -math.inf
        self._lock = threading.Lock()

    def take(self) -> Task | None:
        """Return the next task, named durably, or None when there is no more."""
        with self._lock:
            if not self._named and not self._name_more():
                return None
            task = self._named.popleft()
            self._begun[task.id] = task
            return task

    def ended(self, task: Task) -> None:
        """Say that a task was recorded: from now on its worker's death is not its doing."""
        with self._lock:
            self._begun.pop(task.id, None)

    def announce(self) -> None:
        """Say again which tasks are named and not ended."""
        with self._lock:
            self._announce((*self._begun, *(task.id for task in self._named)))

    @property
    def begun(self) -> tuple[str, ...]:
        """Return the ids of tasks begun and not ended."""
        with self._lock:
            return tuple(self._begun)

    def _name_more(self) -> bool:
        fast = time.monotonic() - self._announced < _FAST_S
        self._batch = min(self._batch * 2, self._most) if fast else self._least
        more = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
        if more:
            self._announce((*self._begun, *(task.id for task in more)))
            self._named.extend(more)
            self._announced = time.monotonic()
        return bool(more)
