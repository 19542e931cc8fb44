"""What the ledgers of all runs of a stage say together: sizes to plan by, reasons to show."""

from __future__ import annotations

from collections.abc import Iterable

from runner import layout, ledger
from runner.store import ObjectInfo, Store
from runner.task import Entry, Outcome

_LEDGERS_READ = 2_000
_LEDGER_BYTES_READ = 256 << 20


def newest_entries(store: Store, stage: str) -> dict[tuple[str, str], tuple[str, Entry]]:
    """Return the newest (run, entry) of each (task id, data type), from the ledgers of a stage's runs."""
    newest: dict[tuple[str, str], tuple[str, Entry]] = {}
    for info in _ledgers(store, stage):
        run = info.key.split("/")[1]
        for entry in ledger.read_attempt(store, info).entries:
            newest[entry.task_id, entry.data_type] = run, entry
    return newest


def known_sizes(store: Store, stage: str, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return the newest known compressed bytes of those (key, data type) that have any, from a stage's ledgers.

    Reads the newest ledgers first, one at a time, until all are known or enough has been read to go by.
    """
    unknown, sizes, left = set(wanted), dict[tuple[str, str], int](), _LEDGER_BYTES_READ
    for info in reversed(_ledgers(store, stage)):
        if not unknown or (left := left - info.size) < 0:
            break
        for entry in reversed(ledger.read_attempt(store, info).entries):
            key = entry.task_id.split("/", 2)[-1], entry.data_type
            size = entry.facts.get("source_bytes")
            if key in unknown and entry.outcome is Outcome.DONE and isinstance(size, int):
                sizes[key] = size
                unknown.discard(key)
    return sizes


def _ledgers(store: Store, stage: str) -> list[ObjectInfo]:
    """Return the newest ledgers of a stage's runs, oldest first."""
    found = (info for info in store.list(f"{layout.RUNS}/{stage}-") if "/shards/" in info.key)
    return sorted(found, key=lambda info: info.updated)[-_LEDGERS_READ:]
