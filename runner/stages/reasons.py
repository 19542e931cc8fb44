"""Why something is not in the store: what the ledgers of download runs and the instrument tables say of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import date, timedelta

from runner import history
from runner.stages.instruments import exported_until
from runner.store import Store
from runner.task import Entry, Stage, Task

_DAYS = 31
_BLOCKS = 2


class Reasons:
    """Why things are missing: the newest ledger entry of each (task id, data type), and what the source had exported.

    Safe to ask from several threads. Ledgers are read for a month at a time, at the first question about one of its
    days; two months are held, for who goes from one to the next.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._newest: dict[int, Mapping[tuple[str, str], tuple[str, Entry]]] = {}
        self._exported: dict[date, Mapping[str, date]] = {}

    def of(self, day: date, key: str, data_type: str) -> tuple[str, Entry] | None:
        """Return the newest (run, entry) of a (task, data type), or None when no ledger names it."""
        return self._entries(day).get((Task(Stage.DOWNLOAD, day, key, ()).id, data_type))

    def _entries(self, day: date) -> Mapping[tuple[str, str], tuple[str, Entry]]:
        block = day.toordinal() // _DAYS
        with self._lock:
            if block not in self._newest:
                if len(self._newest) == _BLOCKS:
                    del self._newest[next(iter(self._newest))]
                first = date.fromordinal(block * _DAYS)
                days = first, first + timedelta(days=_DAYS - 1)
                self._newest[block] = history.newest_entries(self._store, Stage.DOWNLOAD, days)
            return self._newest[block]

    def exported(self, task: Task) -> bool:
        """Tell whether the source had exported a task's day when its instrument table was written."""
        if task.source is None:
            return True
        with self._lock:
            if task.day not in self._exported:
                self._exported[task.day] = exported_until(self._store, task.day)
            return task.day < self._exported[task.day].get(task.source.exchange, date.max)
