"""What the store already holds of a task's outputs, told by listings with metadata: never a request per task.

A (task, data type) is settled when every one of its outputs is there. The ticks, one object or one for each part, are
what tells of it: the last of them was committed last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby

from runner import layout, plan
from runner.stages import content
from runner.store import ObjectInfo, Store
from runner.task import Entry, Fact, Outcome, Task


def live(store: Store, day: date, data_type: str) -> Mapping[str, ObjectInfo]:
    """Return all live outputs of a day and data type, by key."""
    prefixes = layout.output_prefixes(day, data_type)
    return {info.key: info for prefix in prefixes for info in store.list(prefix)}


def by_day(
    store: Store, days: Iterable[date], data_types: Iterable[str]
) -> Iterator[tuple[date, Mapping[str, ObjectInfo]]]:
    """Yield each of the days, in order, with what the listings show of it: the outputs of these data types, by key.

    Others may be among them. Adjacent days share listings, and one day at a time is held in memory.
    """
    ordered = sorted(set(days))
    listings = [_Days(store, prefixes) for prefixes in layout.listings(ordered, data_types)]
    for day in ordered:
        yield day, {info.key: info for listing in listings for info in listing.of(str(day))}


class _Days:
    """A listing in the order of days, read on as they are asked for."""

    def __init__(self, store: Store, prefixes: Iterable[str]) -> None:
        infos = ((layout.day_of(info.key), info) for prefix in prefixes for info in store.list(prefix))
        self._infos = ((day, info) for day, info in infos if day is not None)
        self._next = next(self._infos, None)

    def of(self, day: str) -> Iterator[ObjectInfo]:
        """Yield what there is of a day; asked for in ascending order."""
        while self._next is not None and self._next[0] <= day:
            if self._next[0] == day:
                yield self._next[1]
            self._next = next(self._infos, None)


def present(task: Task, data_type: str, found: Mapping[str, ObjectInfo]) -> tuple[ObjectInfo, ...]:
    """Return the ticks objects when every output of the (task, data type) is among `found`, else none."""
    ticks = layout.ticks_prefix(task.day, data_type)
    if not task.parts and f"{ticks}{layout.name_of(task.key)}.parquet" not in found:
        return ()
    keys = layout.outputs(task.day, data_type, task.key, task.parts)
    if not all(key in found for key in keys):
        return ()
    return tuple(found[key] for key in keys if key.startswith(ticks))


def made_since(store: Store, task: Task, data_type: str) -> tuple[ObjectInfo, ...]:
    """Return the ticks objects when every output is there now; costs one request where nothing is.

    For a worker about to begin a task: a twin may have done it since, while this one slept or was slow to end.
    """
    found: dict[str, ObjectInfo] = {}
    for key in reversed(layout.outputs(task.day, data_type, task.key, task.parts)):
        if (info := store.head(key)) is None:
            return ()
        found[key] = info
    return present(task, data_type, found)


def missing(store: Store, tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks with only the data types that lack an output, without those that lack none."""
    return tuple(rest for task, held in _held(store, tasks) for rest in (plan.without(task, held) if held else (task,)))


def kept(store: Store, tasks: Iterable[Task]) -> Iterator[Entry]:
    """Yield an entry for every (task, data type) whose outputs are all in the store, from the ticks' metadata."""
    for task, held in _held(store, tasks):
        for data_type, ticks in held.items():
            yield entry(task, data_type, ticks, kept=True)


def entry(task: Task, data_type: str, ticks: Sequence[ObjectInfo], **facts: Fact) -> Entry:
    """Return the entry that ticks objects prove. An object without our metadata proves rows unknown.

    Of several parts, rows and bytes are sums and the rest is that of the last; done is what any part has rows of.
    """
    last, metas = ticks[-1], [info.metadata for info in ticks]
    named = [meta.get("outcome") for meta in metas]
    outcomes = [Outcome(name) if name in content.OUTCOMES else Outcome.DONE for name in named]
    proven: dict[str, Fact] = {name: metas[-1].get(name) for name in ("digest", "source_md5", "min_ts", "max_ts")}
    rows = [content.count(meta, "rows") for meta in metas]
    numbers: dict[str, Fact] = {} if None in rows else {"rows": sum(count or 0 for count in rows)}
    if (source_bytes := content.count(metas[-1], "source_bytes")) is not None:
        numbers["source_bytes"] = source_bytes
    numbers |= {"bytes": sum(info.size for info in ticks), "generation": last.generation}
    outcome = Outcome.DONE if Outcome.DONE in outcomes else outcomes[-1]
    return Entry(task.id, data_type, outcome, {**proven, **numbers, **facts})


def _held(store: Store, tasks: Iterable[Task]) -> Iterator[tuple[Task, Mapping[str, tuple[ObjectInfo, ...]]]]:
    ordered = sorted(tasks, key=lambda task: task.day)
    data_types = sorted({data_type for types in {task.data_types for task in ordered} for data_type in types})
    listed = by_day(store, {task.day for task in ordered}, data_types)
    for day, of_day in groupby(ordered, key=lambda task: task.day):
        found = next(found for other, found in listed if other == day)
        for task in of_day:
            yield task, {t: ticks for t in task.data_types if found and (ticks := present(task, t, found))}
