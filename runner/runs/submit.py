"""The states of a request: nothing to do, create, attach, resume, next pass. The store is the only memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runner import layout, ledger, plan, run_record
from runner.errors import Action, ConfigError, PreconditionError, SpecError, action_for
from runner.plan import Plan
from runner.run_record import RunRecord
from runner.runs.outcomes import outcomes
from runner.runs.request import Draft, draft, request_of
from runner.runs.state import CANCELLED, ending
from runner.spec import RunSpec, Selection
from runner.stages import expected
from runner.store import Store
from runner.tardis.client import Tardis
from runner.task import Outcome, Stage


class State(StrEnum):
    """What a submit found or made of its request."""

    CREATED = "created"
    UNFINISHED = "unfinished"
    NOTHING = "nothing to do"
    FAILED = "failed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit's state; `record` is the run it is about, None when there never was one; `draft` what was planned."""

    state: State
    record: RunRecord | None
    draft: Draft | None = None


def submit(
    spec: RunSpec,
    store: Store,
    tardis: Tardis,
    settle: Callable[[RunRecord], object] = lambda _: None,
    *,
    once: bool = False,
) -> Submission:
    """Find the state of this request and, where something is to be done, commit a run for it.

    `settle` is called for a run of it that has no end yet, and writes one where the run has ended all the same.
    An unfinished run is handed back to be followed or resumed, whatever its resources. Of two submits at once one
    creates the run and both get it. `once` makes no further pass: a run of this request that has ended is handed back.
    """
    if store.url.startswith("memory:"):
        raise SpecError("submit: a memory:// store ends with this process and no worker sees it; use file:// or gs://")
    days = expected.days_of(spec, tardis)
    request = request_of(spec, store.url, days)
    base = plan.run_id(spec.stage, request)
    latest = latest_pass(store, base)
    record = _same_request(store, run_record.get_run(store, latest), request) if latest else None
    if record is not None and ending(store, record.id) is None:
        settle(record)
    if record is not None and ending(store, record.id) is None:
        plan.open_plan(store, record).close()  # without its plan nobody can carry it out
        return Submission(State.UNFINISHED, record)
    if record is not None and once:
        return Submission(State.ENDED, record)
    drafted = draft(spec, store, tardis)
    if not drafted.plan.shards:
        return Submission(State.NOTHING, record, drafted)
    if record is not None and _only_once(spec) and _failed_before(store, record, drafted.plan):
        return Submission(State.FAILED, record, drafted)
    number = 0 if latest is None else (plan.pass_number(base, latest) or 0) + 1
    return Submission(State.CREATED, commit(spec, store, drafted, plan.pass_id(base, number)), drafted)


def _only_once(spec: RunSpec) -> bool:
    """Tell whether a failure is left to an explicit retry rather than tried again by the same request."""
    return spec.stage is Stage.DOWNLOAD and spec.select is Selection.MISSING


def create(spec: RunSpec, store: Store, tardis: Tardis, run: str) -> RunRecord:
    """Plan and commit the run with this id, or return the one that another process committed first.

    Raises ConfigError when the spec is another request than the id's.
    """
    drafted = draft(spec, store, tardis)
    if plan.pass_number(drafted.base, run) is None:
        raise ConfigError(f"run {run} is another request than this spec's, which is {drafted.base}; render it anew")
    return commit(spec, store, drafted, run)


def commit(spec: RunSpec, store: Store, drafted: Draft, run: str) -> RunRecord:
    """Write plan, then record, both if-absent; the loser of a race adopts the winner's."""
    body = plan.encode(drafted.plan)
    try:
        store.put(layout.plan(run), body)
    except PreconditionError:
        body = store.get(layout.plan(run))
    run_record.write_run(
        store,
        RunRecord(
            id=run,
            request=drafted.request,
            spec=json.loads(spec.to_json()),
            plan=ledger.pin(body),
            sizes=plan.shard_sizes(body),
            replaces=drafted.replaces,
        ),
    )
    return _same_request(store, run_record.get_run(store, run), drafted.request)


def _same_request(store: Store, record: RunRecord, request: Mapping[str, Any]) -> RunRecord:
    there, here = ledger.canonical(record.request), ledger.canonical(request)
    if there != here:
        raise ConfigError(
            f"run {record.id} in {store.url} is another request: there {there.decode()}, here {here.decode()}; "
            f"remove the run: runner clean {record.id}"
        )
    return record


def latest_pass(store: Store, base: str) -> str | None:
    """Return the id of the newest pass over a request, or None."""
    passes = {
        number: run for run in run_record.run_ids(store, base) if (number := plan.pass_number(base, run)) is not None
    }
    return passes[max(passes)] if passes else None


def _failed_before(store: Store, record: RunRecord, wanted: Plan) -> bool:
    """Tell whether a task that is missing now failed in the last pass, unless somebody cancelled that.

    What ended the run as a whole, such as a refused key, is no failure of the tasks that met it.
    """
    end = ending(store, record.id)
    if end is not None and end.state == CANCELLED:
        return False
    found = outcomes(store, record, end.exits if end else {})
    failed = {
        key
        for entries in found.values()
        for key, entry in entries.items()
        if entry.outcome is Outcome.FAILED and action_for(int(str(entry.facts["exit"]))) is not Action.FAIL_RUN
    }
    return any((task.id, data_type) in failed for task in wanted.tasks for data_type in task.data_types)
