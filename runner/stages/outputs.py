"""What the store already holds of a task's outputs, told by listings with metadata: never a request per task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date

from runner import layout
from runner.stages import content
from runner.store import ObjectInfo, Store
from runner.task import Entry, Fact, Outcome, Task


def live(store: Store, day: date, data_type: str) -> Mapping[str, ObjectInfo]:
    """Return all live outputs of a day and data type, by key."""
    prefixes = layout.output_prefixes(day, data_type)
    return {info.key: info for prefix in prefixes for info in store.list(prefix)}


def present(task: Task, data_type: str, found: Mapping[str, ObjectInfo]) -> ObjectInfo | None:
    """Return the ticks object when every output of the (task, data type) is among `found`, else None."""
    keys = layout.outputs(task.day, data_type, task.key)
    return found[keys[-1]] if all(key in found for key in keys) else None


def made_since(store: Store, task: Task, data_type: str) -> ObjectInfo | None:
    """Return the ticks object when every output is there now; costs one request where nothing is.

    For a worker about to begin a task: a twin may have done it since, while this one slept or was slow to end.
    """
    *derived, last = layout.outputs(task.day, data_type, task.key)
    ticks = store.head(last)
    return ticks if ticks is not None and all(store.head(key) is not None for key in derived) else None


def missing(store: Store, tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks with only the data types that lack an output, without those that lack none."""
    return tuple(
        replace(task, data_types=types)
        for task, held in _held(store, tasks)
        if (types := tuple(t for t in task.data_types if t not in held))
    )


def kept(store: Store, tasks: Iterable[Task]) -> Iterator[Entry]:
    """Yield an entry for every (task, data type) whose outputs are all in the store, from the ticks' metadata."""
    for task, held in _held(store, tasks):
        for data_type, info in held.items():
            yield entry(task, data_type, info, kept=True)


def entry(task: Task, data_type: str, ticks: ObjectInfo, **facts: Fact) -> Entry:
    """Return the entry that a ticks object proves. An object without our metadata proves rows unknown."""
    meta = ticks.metadata
    named = meta.get("outcome")
    outcome = Outcome(named) if named in content.OUTCOMES else Outcome.DONE
    proven: dict[str, Fact] = {name: meta.get(name) for name in ("digest", "source_md5", "min_ts", "max_ts")}
    counts = {name: content.count(meta, name) for name in ("rows", "source_bytes")}
    numbers: dict[str, Fact] = {name: count for name, count in counts.items() if count is not None}
    return Entry(
        task.id, data_type, outcome, {**proven, **numbers, "bytes": ticks.size, "generation": ticks.generation, **facts}
    )


def _held(store: Store, tasks: Iterable[Task]) -> Iterator[tuple[Task, Mapping[str, ObjectInfo]]]:
    by_day: dict[date, list[Task]] = defaultdict(list)
    for task in tasks:
        by_day[task.day].append(task)
    for day in sorted(by_day):
        types = sorted({data_type for task in by_day[day] for data_type in task.data_types})
        found = {data_type: live(store, day, data_type) for data_type in types}
        for task in by_day[day]:
            held = {t: info for t in task.data_types if (info := present(task, t, found[t])) is not None}
            yield task, held
