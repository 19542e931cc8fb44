"""What the ledgers of a run say without being opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from runner import layout, ledger
from runner.run_record import RunRecord
from runner.store import Store


class Settled(NamedTuple):
    """By shard, how many rows its best ledger has settled; and the shards with a ledger that may be of another plan.

    Such a ledger is left by a worker of a run that was removed and submitted again while it could not be stopped.
    """

    rows: Mapping[int, int]
    strange: frozenset[int]


def read_settled(store: Store, record: RunRecord) -> Settled:
    """Return what ledgers say in the metadata of one listing."""
    rows: dict[int, int] = {}
    strange = set()
    for info in store.list(f"{layout.run_prefix(record.id)}shards/"):
        shard, _ = layout.shard_and_attempt(info.key) or (None, "")
        if shard is None:
            continue
        if info.metadata.get(ledger.OF_PLAN) == record.plan.sha256:
            rows[shard] = max(rows.get(shard, 0), int(info.metadata.get(ledger.SETTLED, "0")))
        else:
            strange.add(shard)
    return Settled(rows, frozenset(strange))
