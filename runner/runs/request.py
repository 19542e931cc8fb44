"""A spec as a request: its canonical form, its id, the tasks it wants, packed. Writes nothing but instrument tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from typing import Any

from runner import history, ledger, plan, run_record
from runner.errors import NotFoundError, SpecError
from runner.ledger import Fold
from runner.market.names import SCHEMA_VERSION
from runner.plan import Plan
from runner.run_record import RunRecord
from runner.runs.state import ending
from runner.spec import RunSpec, Selection
from runner.stages import expected, outputs, sealing
from runner.store import Store, open_store
from runner.tardis.client import Tardis
from runner.task import Stage, Task

LAYOUT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Draft:
    """A request worked out: its base id, its canonical form, its packed plan and what a plain split would give.

    `skipped` counts the tasks that the selection leaves out because the store has them; `replaces` tells that it leaves
    out none of these and that they are made anew.
    """

    base: str
    request: Mapping[str, Any]
    plan: Plan
    round_robin: Plan
    skipped: int
    replaces: bool = False


def request_of(spec: RunSpec, store_url: str, days: tuple[date, ...]) -> dict[str, Any]:
    """Return the canonical request: what is asked, and nothing of how it is carried out."""
    return {
        "stage": str(spec.stage),
        "days": [str(days[0]), str(days[-1])],
        "venues": sorted(spec.venues),
        "instrumentTypes": sorted(spec.instrument_types),
        "instruments": sorted(spec.instruments),
        "dataTypes": sorted(spec.data_types),
        "maxInstruments": spec.max_instruments,
        "select": str(spec.select),
        "parent": spec.parent,
        "deep": spec.deep,
        "store": store_url,
        "layout": LAYOUT_VERSION,
        "schema": SCHEMA_VERSION,
    }


def offline_id(spec: RunSpec) -> str:
    """Return the base id of a spec's request without asking anybody.

    Raises SpecError when the days are left to the source.
    """
    if spec.start_date is None:
        raise SpecError("the newest day is known to the source alone, and nobody is asked here; give --start-date")
    # A bucket has one name; a directory is named by its real path.
    url = spec.store if spec.store.startswith("gs://") else open_store(spec.store).url
    return plan.run_id(spec.stage, request_of(spec, url, (spec.start_date, spec.end_date or spec.start_date)))


def draft(spec: RunSpec, store: Store, tardis: Tardis) -> Draft:
    """Return what submitting this spec would do, without writing anything but missing instrument tables.

    Raises NotFoundError when the selectors match nothing or the parent run does not exist.
    """
    days = expected.days_of(spec, tardis)
    request = request_of(spec, store.url, days)
    stage = _STAGES[spec.stage]
    parent = _parent(spec, store) if spec.select is Selection.FAILED else None
    tasks = tuple(_unsettled(parent, store) if parent else stage.tasks(spec, store, tardis, days))
    replaces = parent.replaces if parent else spec.select is Selection.ALL
    wanted = tasks if stage.missing is None or replaces else stage.missing(store, tasks)
    sized = plan.predict(wanted, _known_sizes(store, wanted) if spec.stage is Stage.DOWNLOAD else {}, _venue)
    return Draft(
        base=plan.run_id(spec.stage, request),
        request=request,
        plan=plan.pack(sized, spec.shards),
        round_robin=plan.round_robin(sized, spec.shards),
        skipped=len(tasks) - len(wanted),
        replaces=replaces,
    )


def _known_sizes(store: Store, tasks: Iterable[Task]) -> Mapping[tuple[str, str], int]:
    of_types = {(task.key, task.data_types) for task in tasks}
    wanted = {(key, data_type) for key, data_types in of_types for data_type in data_types}
    return history.known_sizes(store, Stage.DOWNLOAD, wanted)


def _download_tasks(spec: RunSpec, store: Store, tardis: Tardis, days: tuple[date, ...]) -> Iterator[Task]:
    found = list(expected.expect(spec, store, tardis, days))
    expected.refuse_nothing(spec, found)
    return (task for day in found for task in day.tasks)


def _validate_tasks(spec: RunSpec, store: Store, tardis: Tardis, days: tuple[date, ...]) -> Iterator[Task]:
    found = list(expected.expect(spec, store, tardis, days))
    expected.refuse_nothing(spec, found)
    return (task for day in found for task in expected.venue_tasks(day, spec))


def _candle_tasks(spec: RunSpec, store: Store, tardis: Tardis, days: tuple[date, ...]) -> Iterable[Task]:
    found = list(expected.expect(spec, store, tardis, days))
    expected.refuse_nothing(spec, found)
    if not (tasks := tuple(sealing.candle_tasks(store, found))):
        raise NotFoundError(
            f"no candles come of {', '.join(spec.data_types)}; give --data-types trades or book snapshots"
        )
    return tasks


def _availability_tasks(spec: RunSpec, store: Store, tardis: Tardis, days: tuple[date, ...]) -> Iterator[Task]:
    # Of each day only what tells that something matches: its tasks are not done here.
    found = [replace(day, tasks=_one_of_each_venue(day.tasks)) for day in expected.expect(spec, store, tardis, days)]
    expected.refuse_nothing(spec, found)
    return _day_tasks(spec, store, tardis, days)


def _one_of_each_venue(tasks: Iterable[Task]) -> tuple[Task, ...]:
    return tuple({_venue(task.key): task for task in tasks}.values())


def _day_tasks(spec: RunSpec, store: Store, tardis: Tardis, days: tuple[date, ...]) -> Iterator[Task]:
    """Yield a task for each whole day."""
    del store, tardis
    return (Task(spec.stage, day, "*", (str(spec.stage),)) for day in days)


@dataclass(frozen=True, slots=True)
class _Planning:
    """How a stage's request becomes tasks: all of them, and those that the store lacks (None: always all)."""

    tasks: Callable[[RunSpec, Store, Tardis, tuple[date, ...]], Iterable[Task]]
    missing: Callable[[Store, Iterable[Task]], tuple[Task, ...]] | None = None


_STAGES: Mapping[Stage, _Planning] = {
    Stage.INSTRUMENTS: _Planning(_day_tasks),
    Stage.AVAILABILITY: _Planning(_availability_tasks),
    Stage.DOWNLOAD: _Planning(_download_tasks, outputs.missing),
    Stage.CANDLES: _Planning(_candle_tasks, sealing.missing),
    Stage.VALIDATE: _Planning(_validate_tasks),
}


def _parent(spec: RunSpec, store: Store) -> RunRecord:
    """Return the run whose failed tasks are asked for. Raises SpecError when it has not ended."""
    if spec.parent is None:
        raise SpecError("select failed: name the run whose failed tasks are meant: runner retry RUN (or --parent RUN)")
    parent = run_record.get_run(store, spec.parent)
    if ending(store, parent.id) is None:
        raise SpecError(
            f"run {parent.id} has not ended: submit its request again to resume it, or first: runner cancel {parent.id}"
        )
    return parent


def _unsettled(parent: RunRecord, store: Store) -> Iterator[Task]:
    """Yield a run's tasks that have no settled outcome, with only the data types that lack one."""
    folded = ledger.fold(ledger.read_attempts(store, parent.id))
    tasks = chain.from_iterable(plan.decode(io.BytesIO(plan.read_plan(store, parent))))
    for task in tasks:
        yield from plan.without(task, {d for d in task.data_types if _settled(folded, task.id, d)})


def _settled(folded: Fold, task_id: str, data_type: str) -> bool:
    entry = folded.entries.get((task_id, data_type))
    return entry is not None and entry.outcome.settled


def _venue(key: str) -> str:
    return key.split(":", 1)[0]
