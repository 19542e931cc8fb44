"""What became of every row of a plan: ledgers say it, and where a worker died without one, the store and its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from runner import ledger
from runner.errors import Action, action_for
from runner.ledger import Attempt, Fold
from runner.run_record import RunRecord
from runner.store import Store
from runner.task import Entry


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
    given_up = {shard: folds.get(shard, Fold()) for shard in sorted(wanted) if action_for(exits[shard]) is Action.RETRY}
    if given_up:
        # Imported where used: following a run has no need of the plan, nor of Arrow to read it.
        from runner.runs.given_up import rest  # noqa: PLC0415

        for shard, entry in rest(store, record, given_up, exits):
            entries.setdefault(shard, {})[entry.task_id, entry.data_type] = entry
    return entries
