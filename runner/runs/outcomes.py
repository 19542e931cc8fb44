"""What became of every row of a plan: ledgers say it, and where a worker died without one, the store and its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner import ledger, plan
from runner.errors import Action, PoisonError, action_for
from runner.ledger import Fold, RunRecord
from runner.plan import Plan
from runner.spec import Selection
from runner.stages import outputs
from runner.store import Store
from runner.task import Entry, Outcome, Stage, Task


def outcomes(store: Store, record: RunRecord, exits: Mapping[int, int]) -> Mapping[tuple[str, str], Entry]:
    """Return the entry of each (task id, data type) that has one. `exits` are the last exit codes of ended shards.

    A shard that was given up left its last rows to no ledger: those are what the store holds of them, else failed.
    """
    folded = ledger.fold(ledger.read_attempts(store, record.id))
    entries = dict(folded.entries)
    given_up = [shard for shard, code in exits.items() if action_for(code) is Action.RETRY]
    packed = plan.decode_bytes(ledger.read_plan(store, record)) if given_up else Plan(())
    for shard in given_up:
        tasks = packed.shards[shard]
        lost = [rest for t in tasks for rest in plan.without(t, {d for d in t.data_types if (t.id, d) in entries})]
        if record.request.get("select") != Selection.ALL:
            downloads = [task for task in lost if task.stage is Stage.DOWNLOAD]
            entries.update({(e.task_id, e.data_type): e for e in outputs.kept(store, downloads)})
        for entry in _given_up(folded, record.id, lost, f"shard {shard} was given up, last exit {exits[shard]}"):
            entries.setdefault((entry.task_id, entry.data_type), entry)
    return entries


def _given_up(folded: Fold, run: str, tasks: list[Task], why: str) -> Iterator[Entry]:
    for task in tasks:
        deaths = f" after {n} deaths at this task" if (n := folded.deaths.get(task.id)) else ""
        general = PoisonError(
            f"{task.id}: {why}{deaths}; see why: runner logs {run} --failed; then: runner retry {run}"
        )
        cause = ledger.poisoned(folded, task.id, run) or general
        for data_type in task.data_types:
            yield ledger.failure(Entry(task.id, data_type, Outcome.FAILED), cause)
