"""The record of a pipeline: a run of one task for each day and pass, by the same rules as any run's.

The pass is counted before the day is judged: whoever judged a day that somebody else has ended meanwhile finds that
pass, and makes none of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from runner import plan, run_record
from runner.run_record import RunRecord
from runner.runs import ending
from runner.runs.request import Draft, request_of
from runner.runs.submit import commit, latest_pass
from runner.spec import RunSpec, Selection
from runner.store import Store
from runner.task import Stage, Task


@dataclass(frozen=True, slots=True)
class Place:
    """Where a day stands: its request and the base id of that, and the number of the pass to take up or to begin."""

    base: str
    request: Mapping[str, Any]
    number: int
    is_begun: bool

    @property
    def run(self) -> str:
        """Return the id of the pass."""
        return plan.pass_id(self.base, self.number)


def task_of(day: date) -> Task:
    """Return the one task of a pipeline's run."""
    return Task(Stage.PIPELINE, day, "*", (str(Stage.PIPELINE),))


def find(spec: RunSpec, store: Store, day: date, *, allow_incomplete: bool) -> Place:
    """Return the day's pass that is not ended, else the one that comes next."""
    request = _request(spec, store, day, allow_incomplete=allow_incomplete)
    base = plan.run_id(Stage.PIPELINE, request)
    latest = latest_pass(store, base)
    if latest is None:
        return Place(base, request, 0, is_begun=False)
    number, is_begun = plan.pass_number(base, latest) or 0, ending(store, latest) is None
    return Place(base, request, number if is_begun else number + 1, is_begun=is_begun)


def begin(spec: RunSpec, store: Store, day: date, place: Place) -> RunRecord:
    """Commit the record of a pass, or return the one that is there."""
    if place.is_begun:
        return run_record.get_run(store, place.run)
    packed = plan.pack([task_of(day)], 1)
    of_day = spec.model_copy(update={"start_date": day, "end_date": day})
    return commit(of_day, store, Draft(place.base, place.request, packed, packed, 0), place.run)


def _request(spec: RunSpec, store: Store, day: date, *, allow_incomplete: bool) -> dict[str, object]:
    plain = spec.model_copy(update={"select": Selection.MISSING, "parent": None})
    own = {"stage": str(Stage.PIPELINE), "allowIncomplete": allow_incomplete}
    return {**request_of(plain, store.url, (day, day)), **own}
