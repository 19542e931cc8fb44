"""What a shard's tasks have come to, kept in step with every entry so that asking costs nothing. Not thread-safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from runner.task import Entry, Outcome, Task


class Tally:
    """The entries of a shard by (task id, data type), and its tasks by state."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = tuple(tasks)
        self.entries: dict[tuple[str, str], Entry] = {}
        self._left = {task.id: len(task.data_types) for task in self.tasks}
        self._unsettled: Counter[tuple[str, Outcome]] = Counter()
        self._whole: Counter[Outcome | None] = Counter()

    def add(self, entry: Entry) -> None:
        """Take in an entry, in the place of an earlier one of the same (task, data type)."""
        before = self.entries.get((entry.task_id, entry.data_type))
        self._whole[self._standing(entry.task_id)] -= 1
        if before is not None:
            self._count(before, -1)
        self.entries[entry.task_id, entry.data_type] = entry
        self._count(entry, 1)
        self._whole[self._standing(entry.task_id)] += 1

    @property
    def done(self) -> int:
        """Return how many tasks have an entry for each data type, none of them failed."""
        return self._whole[Outcome.DONE] + self.pending

    @property
    def failed(self) -> int:
        """Return how many tasks have an entry for each data type, and a failed one among them."""
        return self._whole[Outcome.FAILED]

    @property
    def pending(self) -> int:
        """Return how many of the tasks that are done have a pending entry."""
        return self._whole[Outcome.PENDING]

    def remaining(self) -> list[Task]:
        """Return the tasks that lack entries, with only the data types they lack."""
        rest = ((t, tuple(d for d in t.data_types if (t.id, d) not in self.entries)) for t in self.tasks)
        return [replace(t, data_types=types) for t, types in rest if types]

    def _count(self, entry: Entry, step: int) -> None:
        self._left[entry.task_id] -= step
        if not entry.outcome.settled:
            self._unsettled[entry.task_id, entry.outcome] += step

    def _standing(self, name: str) -> Outcome | None:
        """Return the gravest outcome of a whole task, DONE for any settled one; None while it lacks an entry."""
        if self._left[name]:
            return None
        return next((o for o in (Outcome.FAILED, Outcome.PENDING) if self._unsettled[name, o]), Outcome.DONE)
