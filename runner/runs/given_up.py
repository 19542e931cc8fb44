"""What became of the rows that a shard left to no ledger, because it was given up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner import ledger, plan
from runner.errors import PoisonError
from runner.ledger import Fold
from runner.run_record import RunRecord
from runner.stages.kept import kept
from runner.store import Store
from runner.task import Entry, Outcome, Task


def rest(
    store: Store, record: RunRecord, given_up: Mapping[int, Fold], exits: Mapping[int, int]
) -> Iterator[tuple[int, Entry]]:
    """Yield shard and entry of every row that the folded ledgers of a shard lack: what the store holds, else failed."""
    packed = plan.decode_bytes(plan.read_plan(store, record))
    for shard, folded in given_up.items():
        tasks = packed.shards[shard]
        known = {t.id: {d for d in t.data_types if (t.id, d) in folded.entries} for t in tasks}
        lost = [left for task in tasks for left in plan.without(task, known[task.id])]
        there = () if record.replaces else tuple(kept(store, lost))
        yield from ((shard, entry) for entry in there)
        proven = {(entry.task_id, entry.data_type) for entry in there}
        for entry in _failed(folded, record.id, lost, f"shard {shard} was given up, last exit {exits[shard]}"):
            if (entry.task_id, entry.data_type) not in proven:
                yield shard, entry


def _failed(folded: Fold, run: str, tasks: list[Task], why: str) -> Iterator[Entry]:
    for task in tasks:
        deaths = f" after {n} deaths at this task" if (n := folded.deaths.get(task.id)) else ""
        general = PoisonError(
            f"{task.id}: {why}{deaths}; see why: runner logs {run} --failed; then: runner retry {run}"
        )
        cause = ledger.poisoned(folded, task.id, run) or general
        for data_type in task.data_types:
            yield ledger.failure(Entry(task.id, data_type, Outcome.FAILED), cause)
