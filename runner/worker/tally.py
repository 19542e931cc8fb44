"""What a shard's tasks have come to, kept in step with every entry so that asking costs nothing. Not thread-safe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from runner.task import Entry, Outcome, Task


class Tally:
    """The entries of a shard by (task id, data type), and its tasks by state."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = tuple(tasks)
        self.entries: dict[tuple[str, str], Entry] = {}
        self._left = {task.id: len(task.data_types) for task in self.tasks}
        self._bad: dict[str, int] = {}
        self._whole = 0
        self._whole_bad = 0

    def add(self, entry: Entry) -> None:
        """Take in an entry, in the place of an earlier one of the same (task, data type)."""
        before = self.entries.get((entry.task_id, entry.data_type))
        if before is not None:
            self._count(before, -1)
        self.entries[entry.task_id, entry.data_type] = entry
        self._count(entry, 1)

    @property
    def done(self) -> int:
        """Return how many tasks have an entry for each data type, none of them failed."""
        return self._whole - self._whole_bad

    @property
    def failed(self) -> int:
        """Return how many tasks have an entry for each data type, and a failed one among them."""
        return self._whole_bad

    def remaining(self) -> list[Task]:
        """Return the tasks that lack entries, with only the data types they lack."""
        rest = ((t, tuple(d for d in t.data_types if (t.id, d) not in self.entries)) for t in self.tasks)
        return [replace(t, data_types=types) for t, types in rest if types]

    def _count(self, entry: Entry, step: int) -> None:
        name = entry.task_id
        whole_before, bad_before = self._left[name] == 0, self._bad.get(name, 0) > 0
        self._left[name] -= step
        self._bad[name] = self._bad.get(name, 0) + step * (entry.outcome is Outcome.FAILED)
        whole, bad = self._left[name] == 0, self._bad[name] > 0
        self._whole += whole - whole_before
        self._whole_bad += (whole and bad) - (whole_before and bad_before)
