"""Why something is not in the store: what the ledgers of download runs and the instrument tables say of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import date

from runner import history
from runner.stages.instruments import exported_until
from runner.store import Store
from runner.task import Entry, Stage, Task


class Reasons:
    """Why things are missing: the newest ledger entry of each (task id, data type), and what the source had exported.

    Safe to ask from several threads. Ledgers are read once, at the first question: those of runs that were asked for
    any of `days`, which is where questions are about (None: about any).
    """

    def __init__(self, store: Store, days: history.Days | None = None) -> None:
        self._store, self._days = store, days
        self._lock = threading.Lock()
        self._newest: Mapping[tuple[str, str], tuple[str, Entry]] | None = None
        self._exported: dict[date, Mapping[str, date]] = {}

    def of(self, day: date, key: str, data_type: str) -> tuple[str, Entry] | None:
        """Return the newest (run, entry) of a (task, data type), or None when no ledger names it."""
        with self._lock:
            if self._newest is None:
                self._newest = history.newest_entries(self._store, Stage.DOWNLOAD, self._days)
        return self._newest.get((Task(Stage.DOWNLOAD, day, key, ()).id, data_type))

    def exported(self, task: Task) -> bool:
        """Tell whether the source had exported a task's day when its instrument table was written."""
        if task.source is None:
            return True
        with self._lock:
            if task.day not in self._exported:
                self._exported[task.day] = exported_until(self._store, task.day)
            return task.day < self._exported[task.day].get(task.source.exchange, date.max)
