"""What became of every row of a plan: ledgers say it, and where a worker died without one, the store and its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from runner import ledger, plan
from runner.errors import Action, PoisonError, action_for
from runner.ledger import Attempt, Fold, RunRecord
from runner.plan import Plan
from runner.spec import Selection
from runner.stages import outputs, sealing
from runner.store import Store
from runner.task import Entry, Outcome, Stage, Task


def outcomes(
    store: Store, record: RunRecord, exits: Mapping[int, int], shards: Collection[int] | None = None
) -> Mapping[int, Mapping[tuple[str, str], Entry]]:
    """Return by shard the entry of each (task id, data type) that has one. `exits` are the last codes of ended shards.

    Only of `shards`, if any are named: what need not be read costs nothing.
    A shard that was given up left its last rows to no ledger: those are what the store holds of them, else failed.
    """
    attempts: dict[int, list[Attempt]] = {}
    for attempt in ledger.read_attempts(store, record.id, shards):
        attempts.setdefault(attempt.shard, []).append(attempt)
    folds = {shard: ledger.fold(each) for shard, each in attempts.items()}
    entries = {shard: dict(folded.entries) for shard, folded in folds.items()}
    wanted = exits if shards is None else exits.keys() & shards
    given_up = [shard for shard in sorted(wanted) if action_for(exits[shard]) is Action.RETRY]
    packed = plan.decode_bytes(plan.read_plan(store, record)) if given_up else Plan(())
    for shard in given_up:
        known = entries.setdefault(shard, {})
        tasks = packed.shards[shard]
        lost = [rest for t in tasks for rest in plan.without(t, {d for d in t.data_types if (t.id, d) in known})]
        if record.request.get("select") != Selection.ALL:
            known.update({(e.task_id, e.data_type): e for e in kept(store, lost)})
        why = f"shard {shard} was given up, last exit {exits[shard]}"
        for entry in _given_up(folds.get(shard, Fold()), record.id, lost, why):
            known.setdefault((entry.task_id, entry.data_type), entry)
    return entries


_KEPT: Mapping[Stage, Callable[[Store, Iterable[Task]], Iterator[Entry]]] = {
    Stage.DOWNLOAD: outputs.kept,
    Stage.CANDLES: sealing.kept,
}
"""What the store proves of tasks, by stage, told by listings; other stages do their tasks again."""


def kept(store: Store, tasks: Iterable[Task]) -> Iterator[Entry]:
    """Yield an entry for every (task, data type) of one stage that the store shows to be settled."""
    tasks = tuple(tasks)
    if tasks and (look := _KEPT.get(tasks[0].stage)) is not None:
        yield from look(store, tasks)


def _given_up(folded: Fold, run: str, tasks: list[Task], why: str) -> Iterator[Entry]:
    for task in tasks:
        deaths = f" after {n} deaths at this task" if (n := folded.deaths.get(task.id)) else ""
        general = PoisonError(
            f"{task.id}: {why}{deaths}; see why: runner logs {run} --failed; then: runner retry {run}"
        )
        cause = ledger.poisoned(folded, task.id, run) or general
        for data_type in task.data_types:
            yield ledger.failure(Entry(task.id, data_type, Outcome.FAILED), cause)
