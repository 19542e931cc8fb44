"""Which candles are sealed, stale or still to be made: told by listings with metadata, never a request per task."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from runner import layout
from runner.market.schema import SCHEMA_VERSION
from runner.stages import content
from runner.stages.expected import Day
from runner.stages.inputs import Find, Inputs, inputs, made_of, pieces
from runner.stages.subject import Subject
from runner.store import ObjectInfo, Store
from runner.task import Entry, Fact, Outcome, Stage, Task

_FOLDERS_KEPT = 48


class Listing:
    """Looks objects up in listings of their folders, each read once while days are asked for in order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folders: OrderedDict[str, Mapping[str, ObjectInfo]] = OrderedDict()

    def find(self, key: str) -> ObjectInfo | None:
        """Return the facts of an object, None where there is none."""
        folder = key[: key.rindex("/") + 1]
        if folder not in self._folders:
            self._folders[folder] = {info.key: info for info in self._store.list(folder)}
            if len(self._folders) > _FOLDERS_KEPT:
                self._folders.popitem(last=False)
        self._folders.move_to_end(folder)
        return self._folders[folder].get(key)


@dataclass(frozen=True, slots=True)
class Seals:
    """Which instruments of a (day, venue, data type) have final candles, and whose are of other ticks than now."""

    sealed: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


def seals(tasks: Iterable[Task], data_type: str, find: Find) -> Seals:
    """Return what is true of the candles of one data type of these tasks."""
    sealed, stale = [], []
    for task in tasks:
        there = held(task, data_type, find)
        if there is not None:
            sealed += [task.key] if all(info.metadata.get("sealed") == "true" for info in there) else []
        elif any(_by_stage(info) for subject in pieces(task, data_type) for info in _objects(subject, find)):
            stale.append(task.key)
    return Seals(tuple(sealed), tuple(stale))


def held(task: Task, data_type: str, find: Find) -> Sequence[ObjectInfo] | None:
    """Return the candle objects of a (task, data type) when all are made of the ticks as they are now, else None."""
    found = [current(subject, inputs(subject, find), find) for subject in pieces(task, data_type)]
    there = [info for infos in found for info in infos or ()]
    return None if not found or None in found else there


def current(subject: Subject, given: Inputs, find: Find) -> Sequence[ObjectInfo] | None:
    """Return the candle objects of a subject when all are made of exactly these inputs, else None."""
    there = _objects(subject, find)
    whole = len(there) == len(subject.derived)
    return there if whole and all(_made_of(info, given) for info in there) else None


def _objects(subject: Subject, find: Find) -> Sequence[ObjectInfo]:
    return [info for key in subject.derived.values() if (info := find(key)) is not None]


def _made_of(info: ObjectInfo, given: Inputs) -> bool:
    meta = info.metadata
    return meta.get("inputs") == given.hash and meta.get("schema") == str(SCHEMA_VERSION)


def _by_stage(info: ObjectInfo) -> bool:
    return info.metadata.get("stage") == Stage.CANDLES


def candle_tasks(store: Store, days: Iterable[Day]) -> Iterator[Task]:
    """Yield a task for each instrument of each day that has any of the types that candles are made of, sized."""
    listing = Listing(store)
    for day in days:
        for task in day.tasks:
            if types := tuple(name for name in task.data_types if pieces(task, name)):
                yield _sized(replace(task, stage=Stage.CANDLES, data_types=types), listing.find)


def missing(store: Store, tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks with only the data types whose candles are not made of the ticks as they are now."""
    listing = Listing(store)
    found = (
        replace(task, data_types=types)
        for task, there in _all_held(tasks, listing.find)
        if (types := tuple(name for name in task.data_types if name not in there))
    )
    return tuple(_sized(task, listing.find) for task in found)


def kept(store: Store, tasks: Iterable[Task]) -> Iterator[Entry]:
    """Yield an entry for every (task, data type) whose candles are made of the ticks as they are now."""
    for task, there in _all_held(tasks, Listing(store).find):
        for data_type, infos in there.items():
            yield entry(task, data_type, infos, kept=True)


def entry(task: Task, data_type: str, there: Sequence[ObjectInfo], **facts: Fact) -> Entry:
    """Return the entry that a day's candle objects prove."""
    meta = there[0].metadata
    proven: dict[str, Fact] = {
        "rows": content.count(meta, "ticks"),
        "sealed": meta.get("sealed") == "true",
        "inputs": meta.get("inputs"),
        "bytes": sum(info.size for info in there),
    }
    return Entry(task.id, data_type, Outcome(meta["outcome"]), {**proven, **facts})


def _all_held(tasks: Iterable[Task], find: Find) -> Iterator[tuple[Task, Mapping[str, Sequence[ObjectInfo]]]]:
    for task in sorted(tasks, key=lambda task: task.day):
        found = {name: held(task, name, find) for name in task.data_types}
        yield task, {name: there for name, there in found.items() if there is not None}


def _sized(task: Task, find: Find) -> Task:
    """Return the task with the bytes of its day's ticks as its size: the days beside are read for a few rows alone."""
    keys = {
        layout.ticks(task.day, data_type, subject.key)
        for name in task.data_types
        for subject in pieces(task, name)
        for data_type in made_of(name)
    }
    return replace(task, predicted_bytes=sum(info.size for key in keys if (info := find(key)) is not None))
